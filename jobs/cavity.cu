// One step of the lattice Boltzmann solver of cavity.py, in the same order of operations: with
// -fmad=false the fields are those of the processor, bit for bit.

// Populations have the shape (rows + 2, 9, n + 2), with ghost cells all around; here are their
// places. The ghost rows hold what the neighbouring ranks sent; the walls need no ghosts.
#define AT(j, k, i) ((((long long)(j)) * 9 + (k)) * (n + 2) + (i))

// Advance the rows `first` to `last - 1` by one step from `old` into `f`: a thread a cell.
__global__ void stream_collide(const double *__restrict__ old, double *__restrict__ f, int n,
                               int rows, int first, int last, double even, double odd,
                               double at_floor, double at_lid, double lid)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x + 1, j = blockIdx.y + first;
    if (i > n || j >= last) return;
    bool left = i == 1, right = i == n, floor = at_floor && j == 1, top = at_lid && j == rows;

    // What a cell sends into a wall comes back to it in the opposite direction; the lid adds
    // 6 w c.u_lid to that. In the corners the side walls are the ones that count.
    double f0 = old[AT(j, 0, i)];
    double f1 = left ? old[AT(j, 2, i)] : old[AT(j, 1, i - 1)];
    double f2 = right ? old[AT(j, 1, i)] : old[AT(j, 2, i + 1)];
    double f3 = floor ? old[AT(j, 6, i)] : old[AT(j - 1, 3, i)];
    double f4 = left || floor ? old[AT(j, 7, i)] : old[AT(j - 1, 4, i - 1)];
    double f5 = right || floor ? old[AT(j, 8, i)] : old[AT(j - 1, 5, i + 1)];
    double f6 = top ? old[AT(j, 3, i)] : old[AT(j + 1, 6, i)];
    double f7 = right ? old[AT(j, 4, i)]
                : top ? old[AT(j, 4, i)] - lid / 6
                      : old[AT(j + 1, 7, i + 1)];
    double f8 = left  ? old[AT(j, 5, i)]
                : top ? old[AT(j, 5, i)] + lid / 6
                      : old[AT(j + 1, 8, i - 1)];

    double jx = f1 - f2 + (f4 - f7) + (f8 - f5);
    double jy = f3 - f6 + (f4 - f7) + (f5 - f8);
    double isotropic = f0 + f1 + f2 + f3 + f4 + f5 + f6 + f7 + f8 - 1.5 * (jx * jx + jy * jy);
    f[AT(j, 0, i)] = f0 - even * (f0 - 4. / 9 * isotropic);

    double s = even * (0.5 * (f1 + f2) - 1. / 9 * (isotropic + 4.5 * jx * jx));
    double d = odd * (0.5 * (f1 - f2) - 1. / 3 * jx);
    f[AT(j, 1, i)] = f1 - s - d;
    f[AT(j, 2, i)] = f2 - s + d;

    s = even * (0.5 * (f3 + f6) - 1. / 9 * (isotropic + 4.5 * jy * jy));
    d = odd * (0.5 * (f3 - f6) - 1. / 3 * jy);
    f[AT(j, 3, i)] = f3 - s - d;
    f[AT(j, 6, i)] = f6 - s + d;

    double c = jx + jy;
    s = even * (0.5 * (f4 + f7) - 1. / 36 * (isotropic + 4.5 * c * c));
    d = odd * (0.5 * (f4 - f7) - 1. / 12 * c);
    f[AT(j, 4, i)] = f4 - s - d;
    f[AT(j, 7, i)] = f7 - s + d;

    c = jy - jx;
    s = even * (0.5 * (f5 + f8) - 1. / 36 * (isotropic + 4.5 * c * c));
    d = odd * (0.5 * (f5 - f8) - 1. / 12 * c);
    f[AT(j, 5, i)] = f5 - s - d;
    f[AT(j, 8, i)] = f8 - s + d;
}

// Write velocity (unit: lid) and pressure (unit: density lid^2), one after another in `fields`,
// of shape (3, rows, n).
__global__ void observe(const double *__restrict__ f, double *__restrict__ fields, int n, int rows,
                        double lid)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x + 1, j = blockIdx.y + 1;
    if (i > n || j > rows) return;
    double g[9], rho = 0;
    for (int k = 0; k < 9; ++k) {
        g[k] = f[AT(j, k, i)];
        rho = k ? rho + g[k] : g[k];
    }
    double jx = g[1] - g[2] + (g[4] - g[7]) + (g[8] - g[5]);
    double jy = g[3] - g[6] + (g[4] - g[7]) + (g[5] - g[8]);
    long long here = (long long)(j - 1) * n + i - 1, size = (long long)rows * n;
    fields[here] = jx / lid;
    fields[size + here] = jy / lid;
    fields[2 * size + here] = rho / 3 / (lid * lid);
}
