// A CUDA driver whose devices are this machine's cores: libcuda.so.1 for tests without a card.
//
// Kernels are shared objects that `nvcc` beside this file makes of CUDA C++. What a real driver
// would not forgive is not forgiven here: memory past an allocation faults and ends the context,
// new memory is full of not-a-numbers, each stream works on a thread of its own and at its own
// pace, a block too large or a barrier that some threads miss is an error.
//
//   SOFTWARE_GPUS          how many devices the machine has (1)
//   SOFTWARE_GPU_HOST      a name that makes their UUIDs, beside their numbers (the machine's)
//   SOFTWARE_GPU_MEMORY    bytes of each (256 MiB)
//   SOFTWARE_GPU_JITTER    the longest pause of a stream before an operation, in microseconds (0)
//   SOFTWARE_GPU_FAULT     a file with the code of an error: who launches next removes the file
//                          and meets the error, for good
#include <cuda.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "execution.hpp"

#define API extern "C" __attribute__((visibility("default"))) CUresult

using Clock = std::chrono::steady_clock;
using software::Kernel;
using software::Launch;

namespace {

const size_t PAGE = 4096;

long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

std::mutex state;

struct Stream;

struct Context {
    int device = 0;  // Its number among those of the machine.
    int users = 0;
    std::atomic<CUresult> lost{CUDA_SUCCESS};
    std::set<Stream *> streams;
    size_t used = 0;
};

struct Allocation {
    void *base;
    size_t mapped, size;
    Context *context;
};

std::map<CUdeviceptr, Allocation> allocations;
std::map<char *, size_t> pinned;
std::map<int, Context *> primary;
thread_local std::vector<Context *> current;

// One thread a stream: what it is told happens in order, and later.
struct Stream {
    Context *context;
    std::deque<std::function<void()>> queue;
    std::mutex mutex;
    std::condition_variable changed;
    bool ended = false, busy = false;
    std::thread thread;

    explicit Stream(Context *owner) : context(owner), thread([this] { work(); }) {}

    void work() {
        std::minstd_rand random(getpid());
        long jitter = setting("SOFTWARE_GPU_JITTER", 0);
        std::unique_lock<std::mutex> hold(mutex);
        while (true) {
            changed.wait(hold, [this] { return ended || !queue.empty(); });
            if (queue.empty()) return;
            auto task = std::move(queue.front());
            queue.pop_front();
            busy = true;
            hold.unlock();
            if (jitter) std::this_thread::sleep_for(std::chrono::microseconds(random() % jitter));
            task();
            hold.lock();
            busy = false;
            changed.notify_all();
        }
    }

    void put(std::function<void()> task) {
        std::lock_guard<std::mutex> hold(mutex);
        queue.push_back(std::move(task));
        changed.notify_all();
    }

    bool idle() {
        std::lock_guard<std::mutex> hold(mutex);
        return queue.empty() && !busy;
    }

    void drain() {
        std::unique_lock<std::mutex> hold(mutex);
        changed.wait(hold, [this] { return queue.empty() && !busy; });
    }

    void end() {
        {
            std::lock_guard<std::mutex> hold(mutex);
            ended = true;
            changed.notify_all();
        }
        thread.join();
    }
};

// What a moment of a stream is, once it has been reached.
struct Moment {
    std::mutex mutex;
    std::condition_variable changed;
    bool reached = false;
    Clock::time_point when;

    void reach() {
        std::lock_guard<std::mutex> hold(mutex);
        reached = true;
        when = Clock::now();
        changed.notify_all();
    }

    void wait() {
        std::unique_lock<std::mutex> hold(mutex);
        changed.wait(hold, [this] { return reached; });
    }

    bool is_reached() {
        std::lock_guard<std::mutex> hold(mutex);
        return reached;
    }
};

struct Event {
    Context *context;
    std::shared_ptr<Moment> moment;
};

struct Module {
    void *handle;
    std::map<std::string, const Kernel *> kernels;
};

struct Function {
    const Kernel *kernel;
    unsigned shared = 49152;
};

unsigned most_threads(const Kernel &kernel) {
    return kernel.most_threads ? kernel.most_threads : 1024;
}

CUresult good(Context **found) {
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    *found = current.back();
    return (*found)->lost;
}

#define IN_CONTEXT(name)                                  \
    Context *name;                                        \
    if (CUresult error = good(&name)) return error

std::vector<int> visible() {
    long count = setting("SOFTWARE_GPUS", 1);
    std::vector<int> found;
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    if (!text) {
        for (int i = 0; i < count; ++i) found.push_back(i);
        return found;
    }
    // As CUDA does: what follows the first that is no device is not seen.
    while (*text) {
        char *end;
        long number = strtol(text, &end, 10);
        if (end == text || number < 0 || number >= count) break;
        found.push_back(int(number));
        text = *end == ',' ? end + 1 : end;
        if (*end && *end != ',') break;
    }
    return found;
}

void drain_all(Context *context) {
    std::set<Stream *> streams;
    {
        std::lock_guard<std::mutex> hold(state);
        streams = context->streams;
    }
    for (Stream *stream : streams) stream->drain();
}

// The default stream waits for all others, and its work is done when the call returns.
CUresult put(Context *context, CUstream handle, std::function<void()> task) {
    if (handle) {
        reinterpret_cast<Stream *>(handle)->put(std::move(task));
        return CUDA_SUCCESS;
    }
    drain_all(context);
    task();
    return context->lost;
}

bool is_pinned(const void *address) {
    std::lock_guard<std::mutex> hold(state);
    auto after = pinned.upper_bound((char *)address);
    if (after == pinned.begin()) return false;
    --after;
    return (char *)address < after->first + after->second;
}

// Whether so many bytes from an address on lie inside one allocation.
bool is_device(CUdeviceptr address, size_t count) {
    std::lock_guard<std::mutex> hold(state);
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return false;
    --after;
    return address + count <= after->first + after->second.size;
}

CUresult copy(void *to, const void *from, size_t count, CUdeviceptr on_device, const void *host,
              CUstream stream, bool async) {
    IN_CONTEXT(context);
    if (count == 0) return CUDA_SUCCESS;
    if (on_device && !is_device(on_device, count)) return CUDA_ERROR_INVALID_VALUE;
    if (async && (!host || is_pinned(host)))
        return put(context, stream, [=] { memcpy(to, from, count); });
    if (stream) reinterpret_cast<Stream *>(stream)->drain();
    else drain_all(context);
    memcpy(to, from, count);
    return CUDA_SUCCESS;
}

template <class Word>
CUresult fill(CUdeviceptr address, Word word, size_t count, CUstream stream) {
    IN_CONTEXT(context);
    if (!is_device(address, count * sizeof(Word))) return CUDA_ERROR_INVALID_VALUE;
    return put(context, stream, [=] {
        for (size_t i = 0; i < count; ++i) ((Word *)address)[i] = word;
    });
}

CUresult injected() {
    const char *path = getenv("SOFTWARE_GPU_FAULT");
    if (!path) return CUDA_SUCCESS;
    int file = open(path, O_RDONLY);
    if (file < 0) return CUDA_SUCCESS;
    char text[16] = {};
    ssize_t count = read(file, text, sizeof text - 1);
    close(file);
    // Only one process has removed it.
    return count > 0 && unlink(path) == 0 ? CUresult(atoi(text)) : CUDA_SUCCESS;
}

int attribute(CUdevice_attribute which) {
    switch (which) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return 8;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return 0;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 2147483647;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 49152;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return 167936;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: return 65536;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: return 65536;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 2;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1000000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 1000000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 64;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: return 1;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: return 1;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: return 2;
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS: return 1;
    default: return 0;
    }
}

CUresult load(CUmodule *module, const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "software GPU: %s\n", dlerror());
        return CUDA_ERROR_INVALID_IMAGE;
    }
    auto first = (const Kernel **)dlsym(handle, "software_kernels");
    if (!first) return CUDA_ERROR_INVALID_IMAGE;
    auto *made = new Module{handle, {}};
    for (const Kernel *each = *first; each; each = each->next) {
        Dl_info info;
        if (dladdr(each->address, &info) && info.dli_sname) made->kernels[info.dli_sname] = each;
    }
    *module = (CUmodule)made;
    return CUDA_SUCCESS;
}

}  // namespace

API cuInit(unsigned) { return visible().empty() ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS; }
API cuDriverGetVersion(int *version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
API cuGetErrorString(CUresult error, const char **text) {
    static const std::map<int, const char *> texts = {
        {0, "no error"},
        {1, "invalid argument"},
        {2, "out of memory"},
        {46, "all CUDA-capable devices are busy or unavailable"},
        {79, "device has been lost"},
        {100, "no CUDA-capable device is detected"},
        {101, "invalid device ordinal"},
        {200, "device kernel image is invalid"},
        {201, "invalid device context"},
        {214, "uncorrectable ECC error encountered"},
        {500, "named symbol not found"},
        {600, "device not ready"},
        {700, "an illegal memory access was encountered"},
        {701, "too many resources requested for launch"},
        {719, "unspecified launch failure"},
        {801, "operation not supported"},
    };
    auto found = texts.find(error);
    *text = found == texts.end() ? "an error without a text" : found->second;
    return CUDA_SUCCESS;
}

API cuDeviceGetCount(int *count) { return *count = int(visible().size()), CUDA_SUCCESS; }
API cuDeviceGet(CUdevice *device, int ordinal) {
    if (ordinal < 0 || ordinal >= int(visible().size())) return CUDA_ERROR_INVALID_DEVICE;
    return *device = ordinal, CUDA_SUCCESS;
}
API cuDeviceGetName(char *name, int length, CUdevice) {
    return snprintf(name, length, "software GPU"), CUDA_SUCCESS;
}
API cuDeviceTotalMem_v2(size_t *bytes, CUdevice) {
    return *bytes = setting("SOFTWARE_GPU_MEMORY", 256 << 20), CUDA_SUCCESS;
}
API cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice) {
    return *value = attribute(which), CUDA_SUCCESS;
}
API cuDeviceComputeCapability(int *major, int *minor, CUdevice) {
    return *major = 8, *minor = 0, CUDA_SUCCESS;
}
API cuDeviceGetPCIBusId(char *text, int length, CUdevice device) {
    return snprintf(text, length, "0000:%02x:00.0", visible()[device]), CUDA_SUCCESS;
}
// Of the machine's name, or what is said to be one, and the device's number on it.
API cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    char host[16] = {};
    if (const char *told = getenv("SOFTWARE_GPU_HOST")) strncpy(host, told, sizeof host - 1);
    else gethostname(host, sizeof host - 1);
    memcpy(uuid->bytes, host, 15);
    uuid->bytes[15] = char(visible()[device]);
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    std::lock_guard<std::mutex> hold(state);
    int number = visible()[device];
    Context *&found = primary[number];
    if (!found) found = new Context{number};
    ++found->users;
    *context = (CUcontext)found;
    return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    std::lock_guard<std::mutex> hold(state);
    Context *found = primary[visible()[device]];
    return found && found->users-- > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
API cuCtxPushCurrent_v2(CUcontext context) {
    return current.push_back((Context *)context), CUDA_SUCCESS;
}
API cuCtxPopCurrent_v2(CUcontext *context) {
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context) *context = (CUcontext)current.back();
    return current.pop_back(), CUDA_SUCCESS;
}
API cuCtxGetCurrent(CUcontext *context) {
    return *context = current.empty() ? nullptr : (CUcontext)current.back(), CUDA_SUCCESS;
}
API cuCtxGetApiVersion(CUcontext, unsigned *version) { return *version = 3020, CUDA_SUCCESS; }
API cuCtxGetDevice(CUdevice *device) {
    IN_CONTEXT(context);
    auto seen = visible();
    for (size_t i = 0; i < seen.size(); ++i)
        if (seen[i] == context->device) *device = int(i);
    return CUDA_SUCCESS;
}
API cuCtxSynchronize() {
    IN_CONTEXT(context);
    drain_all(context);
    return context->lost;
}

API cuModuleLoad(CUmodule *module, const char *path) {
    IN_CONTEXT(context);
    (void)context;
    return load(module, path);
}
API cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned, CUjit_option *, void **) {
    IN_CONTEXT(context);
    (void)context;
    // The linker takes files alone; the image ends where its section headers do.
    auto header = (const char *)image;
    if (memcmp(header, "\x7f" "ELF", 4)) return CUDA_ERROR_INVALID_IMAGE;
    auto at = *(const unsigned long *)(header + 40);
    auto each = *(const unsigned short *)(header + 58), many = *(const unsigned short *)(header + 60);
    char path[] = "/dev/shm/software-gpu-XXXXXX";
    int file = mkstemp(path);
    size_t size = at + size_t(each) * many;
    bool whole = write(file, image, size) == ssize_t(size);
    close(file);
    CUresult loaded = whole ? load(module, path) : CUDA_ERROR_OUT_OF_MEMORY;
    unlink(path);
    return loaded;
}
API cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
API cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
API cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    auto &kernels = ((Module *)module)->kernels;
    auto found = kernels.find(name);
    if (found == kernels.end()) return CUDA_ERROR_NOT_FOUND;
    *function = (CUfunction) new Function{found->second};
    return CUDA_SUCCESS;
}
API cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name) {
    void *found = dlsym(((Module *)module)->handle, name);
    if (!found) return CUDA_ERROR_NOT_FOUND;
    return *address = CUdeviceptr(found), *bytes = 0, CUDA_SUCCESS;
}
API cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function) {
    const Kernel &kernel = *((Function *)function)->kernel;
    *value = which == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? most_threads(kernel)
             : which == CU_FUNC_ATTRIBUTE_NUM_REGS            ? 32
                                                              : 0;
    return CUDA_SUCCESS;
}
API cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
    if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value < 0 || value > 166912) return CUDA_ERROR_INVALID_VALUE;
    return ((Function *)function)->shared = value, CUDA_SUCCESS;
}
API cuFuncSetBlockShape(CUfunction, int, int, int) { return CUDA_SUCCESS; }
API cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

API cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned shared, CUstream stream, void **, void **extra) {
    IN_CONTEXT(context);
    size_t threads = size_t(bx) * by * bz;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !threads || threads > 1024 || bz > 64)
        return CUDA_ERROR_INVALID_VALUE;
    auto kernel = ((Function *)function)->kernel;
    if (shared > ((Function *)function)->shared || threads > most_threads(*kernel))
        return CUDA_ERROR_INVALID_VALUE;
    if (CUresult error = injected()) {
        context->lost = error;
        return error;
    }
    std::string arguments;
    const char *buffer = nullptr;
    for (void **each = extra; each && *each != CU_LAUNCH_PARAM_END; each += 2) {
        if (*each == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = (const char *)each[1];
        if (*each == CU_LAUNCH_PARAM_BUFFER_SIZE && buffer)
            arguments.assign(buffer, *(size_t *)each[1]);
    }
    Launch launch{{gx, gy, gz}, {bx, by, bz}, shared};
    return put(context, stream, [=] {
        if (context->lost == CUDA_SUCCESS && !software::run(*kernel, launch, arguments.c_str()))
            context->lost = CUDA_ERROR_ILLEGAL_ADDRESS;
    });
}

API cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    IN_CONTEXT(context);
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard<std::mutex> hold(state);
    if (context->used + bytes > size_t(setting("SOFTWARE_GPU_MEMORY", 256 << 20)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    // It ends where a page begins that nobody may touch, as nearly as alignment lets it.
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    auto base = (char *)mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    mprotect(base + pages, PAGE, PROT_NONE);
    auto start = CUdeviceptr(base + (pages - bytes) / 256 * 256);
    memset((void *)start, 0xff, bytes);
    allocations[start] = {base, pages + PAGE, bytes, context};
    context->used += bytes;
    return *address = start, CUDA_SUCCESS;
}
API cuMemFree_v2(CUdeviceptr address) {
    IN_CONTEXT(context);
    drain_all(context);
    std::lock_guard<std::mutex> hold(state);
    auto found = allocations.find(address);
    if (found == allocations.end()) return CUDA_ERROR_INVALID_VALUE;
    found->second.context->used -= found->second.size;
    munmap(found->second.base, found->second.mapped);
    return allocations.erase(found), CUDA_SUCCESS;
}
API cuMemGetInfo_v2(size_t *free, size_t *total) {
    IN_CONTEXT(context);
    *total = setting("SOFTWARE_GPU_MEMORY", 256 << 20);
    return *free = *total - context->used, CUDA_SUCCESS;
}
API cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    IN_CONTEXT(context);
    (void)context;
    *address = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!*address) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(*address, 0xff, bytes);
    std::lock_guard<std::mutex> hold(state);
    return pinned[(char *)*address] = bytes, CUDA_SUCCESS;
}
API cuMemFreeHost(void *address) {
    IN_CONTEXT(context);
    drain_all(context);
    std::lock_guard<std::mutex> hold(state);
    pinned.erase((char *)address);
    return std::free(address), CUDA_SUCCESS;
}
API cuMemHostRegister_v2(void *address, size_t bytes, unsigned) {
    std::lock_guard<std::mutex> hold(state);
    return pinned[(char *)address] = bytes, CUDA_SUCCESS;
}
API cuMemHostUnregister(void *address) {
    std::lock_guard<std::mutex> hold(state);
    return pinned.erase((char *)address), CUDA_SUCCESS;
}

API cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t n) {
    return copy((void *)to, from, n, to, from, nullptr, false);
}
API cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t n) {
    return copy(to, (void *)from, n, from, to, nullptr, false);
}
API cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t n) {
    return copy((void *)to, (void *)from, n, to, nullptr, nullptr, true);
}
API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t n, CUstream stream) {
    return copy((void *)to, from, n, to, from, stream, true);
}
API cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t n, CUstream stream) {
    return copy(to, (void *)from, n, from, to, stream, true);
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream) {
    return copy((void *)to, (void *)from, n, to, nullptr, stream, true);
}
API cuMemsetD8_v2(CUdeviceptr to, unsigned char w, size_t n) { return fill(to, w, n, nullptr); }
API cuMemsetD32_v2(CUdeviceptr to, unsigned w, size_t n) { return fill(to, w, n, nullptr); }
API cuMemsetD8Async(CUdeviceptr to, unsigned char w, size_t n, CUstream s) { return fill(to, w, n, s); }
API cuMemsetD32Async(CUdeviceptr to, unsigned w, size_t n, CUstream s) { return fill(to, w, n, s); }

API cuStreamCreate(CUstream *stream, unsigned) {
    IN_CONTEXT(context);
    auto *made = new Stream(context);
    std::lock_guard<std::mutex> hold(state);
    context->streams.insert(made);
    return *stream = (CUstream)made, CUDA_SUCCESS;
}
API cuStreamDestroy_v2(CUstream handle) {
    auto *stream = (Stream *)handle;
    {
        std::lock_guard<std::mutex> hold(state);
        stream->context->streams.erase(stream);
    }
    stream->end();
    delete stream;
    return CUDA_SUCCESS;
}
API cuStreamQuery(CUstream handle) {
    IN_CONTEXT(context);
    (void)context;
    return !handle || ((Stream *)handle)->idle() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
API cuStreamSynchronize(CUstream handle) {
    IN_CONTEXT(context);
    if (handle) ((Stream *)handle)->drain();
    else drain_all(context);
    return context->lost;
}
API cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    IN_CONTEXT(context);
    auto moment = ((Event *)event)->moment;
    return moment ? put(context, stream, [=] { moment->wait(); }) : CUDA_SUCCESS;
}
API cuEventCreate(CUevent *event, unsigned) {
    IN_CONTEXT(context);
    return *event = (CUevent) new Event{context, nullptr}, CUDA_SUCCESS;
}
API cuEventDestroy_v2(CUevent event) { return delete (Event *)event, CUDA_SUCCESS; }
API cuEventRecord(CUevent event, CUstream stream) {
    IN_CONTEXT(context);
    auto moment = std::make_shared<Moment>();
    ((Event *)event)->moment = moment;
    return put(context, stream, [=] { moment->reach(); });
}
API cuEventQuery(CUevent event) {
    IN_CONTEXT(context);
    auto moment = ((Event *)event)->moment;
    if (moment && !moment->is_reached()) return CUDA_ERROR_NOT_READY;
    return context->lost;
}
API cuEventSynchronize(CUevent event) {
    IN_CONTEXT(context);
    if (auto moment = ((Event *)event)->moment) moment->wait();
    return context->lost;
}
API cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to) {
    auto begin = ((Event *)from)->moment, end = ((Event *)to)->moment;
    if (!begin || !end) return CUDA_ERROR_INVALID_HANDLE;
    if (!begin->is_reached() || !end->is_reached()) return CUDA_ERROR_NOT_READY;
    *ms = std::chrono::duration<float, std::milli>(end->when - begin->when).count();
    return CUDA_SUCCESS;
}
