// The few functions of cuBLAS that hpckit calls, for software devices: their memory is the host's.
template <class Real>
static int gemm(int rows, int columns, int inner, Real alpha, const Real *a, int lda, long long next_a,
                const Real *b, int ldb, long long next_b, Real beta, Real *c, int ldc,
                long long next_c, int count)
{
    for (int each = 0; each < count; ++each, a += next_a, b += next_b, c += next_c)
        for (int j = 0; j < columns; ++j)
            for (int i = 0; i < rows; ++i) {
                Real sum = 0;
                for (int k = 0; k < inner; ++k) sum += a[i + (long long)k * lda] * b[k + (long long)j * ldb];
                Real &out = c[i + (long long)j * ldc];
                out = beta == 0 ? alpha * sum : alpha * sum + beta * out;
            }
    return 0;
}

extern "C" int cublasCreate_v2(void **handle) { return *handle = handle, 0; }

extern "C" int cublasDestroy_v2(void *) { return 0; }

#define GEMM(name, Real)                                                                          \
    extern "C" int name(void *, int, int, int m, int n, int k, const Real *alpha, const Real *a,  \
                        int lda, long long sa, const Real *b, int ldb, long long sb,              \
                        const Real *beta, Real *c, int ldc, long long sc, int count)              \
    {                                                                                             \
        return gemm(m, n, k, *alpha, a, lda, sa, b, ldb, sb, *beta, c, ldc, sc, count);           \
    }
GEMM(cublasDgemmStridedBatched, double)
GEMM(cublasSgemmStridedBatched, float)
