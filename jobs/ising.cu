// Heat bath on a checkerboard, for ising.py. The sites of one colour are no neighbours of each
// other: they are kept by themselves, in an array of shape (L, L / 2), black and white.

// Four random words for a counter: Philox4x32-10 of Salmon, Moraes, Dror & Shaw, SC '11 (2011).
// They depend on nothing but the key and the counter, so that any number of threads get the same.
__device__ void philox(unsigned c[4], unsigned key0, unsigned key1)
{
    for (int turn = 0; turn < 10; ++turn) {
        unsigned high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
        unsigned high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
        c[0] = high1 ^ c[1] ^ key0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key1;
        c[3] = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// Sum of the four spins around the site (j, k) of one colour; they are all of the other one.
__device__ int around(const signed char *other, int half, int L, int j, int k, int colour)
{
    int above = j ? j - 1 : L - 1, below = j + 1 < L ? j + 1 : 0;
    int beside = (j + colour) % 2 ? (k + 1 < half ? k + 1 : 0) : (k ? k - 1 : half - 1);
    return other[(long long)above * half + k] + other[(long long)below * half + k] +
           other[(long long)j * half + k] + other[(long long)j * half + beside];
}

// Draw all spins of one colour anew, given those around them: a thread four sites of a row.
// `up` holds, by the sum of neighbours from -4 in steps of 2, how many of 2^32 words mean up.
__global__ void heat_bath(signed char *mine, const signed char *other, int L, int colour,
                          unsigned sweep, unsigned key0, unsigned key1,
                          const unsigned long long *up)
{
    int half = L / 2, first = 4 * (blockIdx.x * blockDim.x + threadIdx.x), j = blockIdx.y;
    if (first >= half) return;
    unsigned word[4] = {(unsigned)first, (unsigned)j, sweep, (unsigned)colour};
    philox(word, key0, key1);
    for (int each = 0; each < 4 && first + each < half; ++each) {
        int k = first + each, sum = around(other, half, L, j, k, colour);
        mine[(long long)j * half + k] = word[each] < up[(sum + 4) / 2] ? 1 : -1;
    }
}

// Add up the spins, and the bonds: each has one black end. Whole numbers have no order of sums.
__global__ void measure(const signed char *black, const signed char *white, int L, int at,
                        unsigned long long *spins, unsigned long long *bonds)
{
    __shared__ int part[2][32];
    int half = L / 2, j = blockIdx.y, sum = 0, bond = 0;
    for (int k = blockIdx.x * 32 + threadIdx.x; k < half; k += gridDim.x * 32) {
        int spin = black[(long long)j * half + k];
        sum += spin + white[(long long)j * half + k];
        bond += spin * around(white, half, L, j, k, 0);
    }
    part[0][threadIdx.x] = sum;
    part[1][threadIdx.x] = bond;
    __syncthreads();
    for (int width = 16; width > 0; width /= 2) {
        if (threadIdx.x < width) {
            part[0][threadIdx.x] += part[0][threadIdx.x + width];
            part[1][threadIdx.x] += part[1][threadIdx.x + width];
        }
        __syncthreads();
    }
    if (threadIdx.x) return;
    atomicAdd(spins + at, (unsigned long long)part[0][0]);
    atomicAdd(bonds + at, (unsigned long long)part[1][0]);
}
