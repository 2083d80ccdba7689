// How the software device works off a launch: block after block, each thread a fiber if it meets
// barriers. Shared by the driver, which starts launches, and the kernels, which run in them.
#pragma once
#include <csignal>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstring>
#include <vector>

namespace software {

struct Size {
    unsigned x, y, z;
};

struct Launch {
    Size grid, block;
    unsigned shared;
};

// What the threads of one block see; each stream's thread of the machine has its own.
struct Place {
    Size grid, block, of_block, of_thread;
    std::vector<double> *dynamic;
    void (*barrier)();
};

struct Kernel {
    void *address;
    Place &(*place)();
    void (*call)(const char *arguments);
    const Kernel *next;
    unsigned most_threads;
};

const size_t STACK = 256 << 10, LARGEST = 1024;

// One block at work, on one thread of the machine.
class Block {
  public:
    Block(const Kernel &kernel, const Launch &launch, const char *arguments)
        : kernel_(kernel), launch_(launch), arguments_(arguments), place_(kernel.place()),
          count_(launch.block.x * launch.block.y * launch.block.z),
          dynamic_(launch.shared / sizeof(double) + 1), fibers_(count_), done_(count_) {
        // Room for the largest block, kept for the next launch of this thread of the machine.
        static thread_local char *kept = (char *)mmap(
            nullptr, STACK * LARGEST, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        stacks_ = kept;
        place_ = {launch.grid, launch.block, {}, {}, &dynamic_, &barrier};
    }

    // Work off one; false if a thread touched memory that is not its device's, or a barrier
    // was met by a part of the threads.
    bool run(Size number) {
        place_.of_block = number;
        working = this;
        std::memset(done_.data(), 0, count_);
        failed_ = false;
        left_ = count_;
        in_fiber_ = true;
        // Where the first thread meets no barrier, the others need no stack of their own.
        step(0, true);
        if (done_[0] && !failed_) {
            in_fiber_ = false;
            getcontext(&scheduler_);
            for (unsigned i = 1; i < count_ && !failed_; ++i) {
                enter(i);
                kernel_.call(arguments_);
            }
        } else {
            for (unsigned i = 1; i < count_ && !failed_; ++i) step(i, true);
            while (left_ && !failed_)
                for (unsigned i = 0; i < count_ && !failed_; ++i)
                    if (!done_[i]) step(i, false);
        }
        working = nullptr;
        return !failed_;
    }

    static inline thread_local Block *working = nullptr;

    // Of a signal: leave the kernel for good.
    void fail() {
        failed_ = true;
        setcontext(&scheduler_);
    }

  private:
    static void barrier() {
        Block *self = working;
        if (!self->in_fiber_) self->fail();
        unsigned index = self->index_;
        swapcontext(&self->fibers_[index], &self->scheduler_);
        self->enter(index);
    }

    static void body() {
        Block *self = working;
        self->kernel_.call(self->arguments_);
        self->done_[self->index_] = 1;
        --self->left_;
        setcontext(&self->scheduler_);
    }

    void enter(unsigned index) {
        index_ = index;
        Size size = launch_.block;
        place_.of_thread = {index % size.x, index / size.x % size.y, index / size.x / size.y};
    }

    void step(unsigned index, bool is_new) {
        enter(index);
        if (is_new) {
            getcontext(&fibers_[index]);
            fibers_[index].uc_stack.ss_sp = stacks_ + STACK * index;
            fibers_[index].uc_stack.ss_size = STACK;
            fibers_[index].uc_link = nullptr;
            makecontext(&fibers_[index], &body, 0);
        }
        swapcontext(&scheduler_, &fibers_[index]);
    }

    const Kernel &kernel_;
    Launch launch_;
    const char *arguments_;
    Place &place_;
    unsigned count_, left_ = 0, index_ = 0;
    volatile bool failed_ = false, in_fiber_ = false;
    std::vector<double> dynamic_;
    std::vector<ucontext_t> fibers_;
    std::vector<char> done_;
    char *stacks_;
    ucontext_t scheduler_;
};

inline void on_fault(int signal_number) {
    if (Block::working) Block::working->fail();
    signal(signal_number, SIG_DFL);
}

inline bool run(const Kernel &kernel, const Launch &launch, const char *arguments) {
    struct sigaction action = {};
    action.sa_handler = on_fault;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
    Block block(kernel, launch, arguments);
    for (unsigned z = 0; z < launch.grid.z; ++z)
        for (unsigned y = 0; y < launch.grid.y; ++y)
            for (unsigned x = 0; x < launch.grid.x; ++x)
                if (!block.run({x, y, z})) return false;
    return true;
}

}  // namespace software
