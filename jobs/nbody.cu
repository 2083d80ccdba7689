// Gravity for nbody.py: a thread a body, whose block loads the others tile by tile.
__global__ void forces(const double *__restrict__ x, double *__restrict__ a,
                       double *__restrict__ potential, double softening, int n)
{
    __shared__ double tile[128][3];
    int i = blockIdx.x * 128 + threadIdx.x, own = i < n ? i : n - 1;
    double xi = x[4 * own], yi = x[4 * own + 1], zi = x[4 * own + 2];
    double ax = 0, ay = 0, az = 0, phi = 0, mass = 1.0 / n;
    for (int first = 0; first < n; first += 128) {
        int j = first + threadIdx.x;
        if (j < n)
            for (int axis = 0; axis < 3; ++axis) tile[threadIdx.x][axis] = x[4 * j + axis];
        __syncthreads();
        int count = min(128, n - first);
        for (int k = 0; k < count; ++k) {
            double dx = tile[k][0] - xi, dy = tile[k][1] - yi, dz = tile[k][2] - zi;
            double inverse = rsqrt(dx * dx + dy * dy + dz * dz + softening * softening);
            double cube = mass * inverse * inverse * inverse;
            ax += cube * dx;
            ay += cube * dy;
            az += cube * dz;
            phi -= mass * inverse;
        }
        __syncthreads();
    }
    if (i >= n) return;
    a[4 * i] = ax;
    a[4 * i + 1] = ay;
    a[4 * i + 2] = az;
    potential[i] = phi + mass / softening;  // without the body itself
}

// Add dt times the one to the other.
__global__ void kick(double *__restrict__ what, const double *__restrict__ rate, double dt, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    for (int axis = 0; axis < 3; ++axis) what[4 * i + axis] += dt * rate[4 * i + axis];
}

// Twice the kinetic energy of each body, over its mass.
__global__ void kinetic(const double *__restrict__ v, double *__restrict__ out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = v[4 * i] * v[4 * i] + v[4 * i + 1] * v[4 * i + 1] + v[4 * i + 2] * v[4 * i + 2];
}
