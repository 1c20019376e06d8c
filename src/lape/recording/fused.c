/* What is recorded of a layer's activations, in one pass over memory: see fused.py, which compiles this and proves it.

   Activations are (tokens, width) with `stride` numbers from token to token; fold says which fold a token counts in, -1 for none.
   Threads share out columns, so that no sum depends on how many there are. Sums run in ACC within BLOCK tokens, in double beyond. */

#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define BLOCK 128
#define MOST 512 /* columns at once: their sums stay in the fastest cache */
#define FEWEST 32
#define BINS 70
#define ZERO 20 /* the bin that ends in 0 */
#define LEVELS 48 /* edges above 0 */
#define FIRST 234 /* exponent and first bit of the mantissa of the smallest of them */

typedef uint16_t bfloat16;

static inline float of_bits(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline int32_t bits_of(float x) { int32_t bits; memcpy(&bits, &x, 4); return bits; }
static inline float wide_bfloat16(bfloat16 x) { return of_bits((uint32_t)x << 16); }
static inline float wide_float32(float x) { return x; }
static inline double wide_float64(double x) { return x; }

/* Columns that a thread takes at once. */
static int64_t at_once(int64_t width) {
  int64_t threads = 1;
#ifdef _OPENMP
  threads = omp_get_max_threads();
#endif
  int64_t share = (width + threads - 1) / threads;
  share = (share + FEWEST - 1) / FEWEST * FEWEST;
  return share > MOST ? MOST : share;
}

#define IN_STRIPS(BODY) \
  int64_t step = at_once(width); \
  _Pragma("omp parallel for schedule(static)") \
  for (int64_t from = 0; from < width; from += step) { \
    int64_t n = width - from < step ? width - from : step; \
    BODY \
  }

/* fires (folds, width) and sums (3, width): of the activation, its square and its positive part. */
#define COUNT(TYPE, C, ACC) \
void count_##TYPE(const C *a, int64_t tokens, int64_t width, int64_t stride, const int8_t *fold, double *sums, int64_t *fires) { \
  IN_STRIPS( \
    ACC sum[MOST]; ACC square[MOST]; ACC positive[MOST]; int32_t fired[MOST]; \
    for (int64_t t = 0; t < tokens;) { \
      int64_t stop = t + BLOCK < tokens ? t + BLOCK : tokens; \
      memset(sum, 0, sizeof sum); memset(square, 0, sizeof square); memset(positive, 0, sizeof positive); \
      while (t < stop) { \
        int8_t here = fold[t]; \
        if (here < 0) { t++; continue; } \
        memset(fired, 0, sizeof fired); \
        for (; t < stop && fold[t] == here; t++) { \
          const C *row = a + t * stride + from; \
          for (int64_t j = 0; j < n; j++) { \
            ACC x = wide_##TYPE(row[j]); \
            sum[j] += x; square[j] += x * x; positive[j] += x > 0 ? x : 0; fired[j] += x > 0; \
          } \
        } \
        for (int64_t j = 0; j < n; j++) fires[here * width + from + j] += fired[j]; \
      } \
      for (int64_t j = 0; j < n; j++) { \
        sums[from + j] += sum[j]; sums[width + from + j] += square[j]; sums[2 * width + from + j] += positive[j]; \
      } \
    }) \
}

/* sums (2, width): of the activation and its square. */
#define MOMENTS(TYPE, C, ACC) \
void moments_##TYPE(const C *a, int64_t tokens, int64_t width, int64_t stride, const int8_t *fold, double *sums) { \
  IN_STRIPS( \
    ACC sum[MOST]; ACC square[MOST]; \
    for (int64_t t = 0; t < tokens;) { \
      int64_t stop = t + BLOCK < tokens ? t + BLOCK : tokens; \
      memset(sum, 0, sizeof sum); memset(square, 0, sizeof square); \
      for (; t < stop; t++) { \
        if (fold[t] < 0) continue; \
        const C *row = a + t * stride + from; \
        for (int64_t j = 0; j < n; j++) { ACC x = wide_##TYPE(row[j]); sum[j] += x; square[j] += x * x; } \
      } \
      for (int64_t j = 0; j < n; j++) { sums[from + j] += sum[j]; sums[width + from + j] += square[j]; } \
    }) \
}

/* counts (width, BINS): how many lie in each bin of lape.values.histogram, whose bins_of this follows step by step. */
#define BIN(TYPE, C) \
void bin_##TYPE(const C *a, int64_t tokens, int64_t width, int64_t stride, const int8_t *fold, int64_t *counts) { \
  IN_STRIPS( \
    int32_t bin[MOST]; \
    for (int64_t t = 0; t < tokens; t++) { \
      if (fold[t] < 0) continue; \
      const C *row = a + t * stride + from; \
      for (int64_t j = 0; j < n; j++) { \
        int32_t bits = bits_of((float)wide_##TYPE(row[j])); \
        int32_t sign = bits >> 31; \
        int32_t level = ((bits & 0x7FFFFFFF) - (sign + 1)) >> 22; \
        int32_t place = level - (FIRST - 1); \
        place = place < 0 ? 0 : place > LEVELS ? LEVELS : place; \
        place = (place ^ sign) + (level >> 31) + ZERO + 1; \
        bin[j] = place < 0 ? 0 : place; \
      } \
      for (int64_t j = 0; j < n; j++) counts[(from + j) * BINS + bin[j]]++; \
    }) \
}

#define EVERY(TYPE, C, ACC) COUNT(TYPE, C, ACC) MOMENTS(TYPE, C, ACC) BIN(TYPE, C)
EVERY(bfloat16, bfloat16, float)
EVERY(float32, float, float)
EVERY(float64, double, double)
