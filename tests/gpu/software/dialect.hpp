// CUDA C++ as far as the tests' kernels speak it, for the machine's own compiler.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "execution.hpp"

using std::max;
using std::min;

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct uint4 { unsigned x, y, z, w; };
struct double2 { double x, y; };
struct double3 { double x, y, z; };
struct double4 { double x, y, z, w; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline double3 make_double3(double x, double y, double z) { return {x, y, z}; }

namespace software {

static thread_local Place here;
static Place &place() { return here; }

// Takes the arguments apart as a launch packs them: each at the next multiple of its size.
template <class... Parameters>
std::tuple<std::decay_t<Parameters>...> unpacked(const char *packed) {
    size_t at = 0;
    auto next = [&](auto value) {
        at = (at + alignof(decltype(value)) - 1) / alignof(decltype(value)) * alignof(decltype(value));
        std::memcpy(&value, packed + at, sizeof value);
        at += sizeof value;
        return value;
    };
    return std::tuple<std::decay_t<Parameters>...>{next(std::decay_t<Parameters>{})...};
}

template <auto function> struct Called;
template <class... Parameters, void (*function)(Parameters...)> struct Called<function> {
    static void call(const char *packed) { std::apply(function, unpacked<Parameters...>(packed)); }
};

}  // namespace software

// The kernels of this object, which the driver looks for.
extern "C" const software::Kernel *software_kernels;
const software::Kernel *software_kernels = nullptr;

namespace software {

template <auto function, unsigned most_threads = 0> struct Registered {
    Kernel kernel{(void *)function, &place, &Called<function>::call, software_kernels, most_threads};
    Registered() { software_kernels = &kernel; }
};

}  // namespace software

#define threadIdx (software::here.of_thread)
#define blockIdx (software::here.of_block)
#define blockDim (software::here.block)
#define gridDim (software::here.grid)
static inline void __syncthreads() { software::here.barrier(); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
template <class T> T __ldg(const T *address) { return *address; }
// Blocks are worked off one after another, so that nothing can come between.
template <class T> T atomicAdd(T *address, T value) {
    T before = *address;
    *address += value;
    return before;
}
