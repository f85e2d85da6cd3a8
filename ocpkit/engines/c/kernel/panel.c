/* C += A B on panels of four rows, whose sums stay in registers. A term of A is one number, a row of B a vector:
   rank-one updates, so that the compiler needs no reordering of sums to use vector instructions. */
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "compile without -ffast-math, -Ofast and -ffinite-math-only: line search and statuses look for NaN and infinity"
#endif
#ifdef __AVX__
enum { LANES = 4 };
#else
enum { LANES = 2 }; /* a vector wider than the registers would live in memory */
#endif
#include <stdint.h>
typedef double pack __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
enum { PACK = 4 }; /* rows are padded to so many numbers, whatever the registers hold */
#define ROUND_UP(count) (((count) + PACK - 1) / PACK * PACK)
#define INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE __attribute__((noinline))
#define AT(pointer) (*(pack *)(pointer))
#define CONST_AT(pointer) (*(const pack *)(pointer))

/* Four rows and two packs of columns of C (whose rows and B's are `width` apart) from `depth` terms;
   A's entry of row r and term k is a[r * row + k * term]. Starts from `from`, or from zero. */
INLINE void panel_two(int depth, const double *a, int row, int term, const double *b, const double *from, double *c,
                      int width) {
  pack c00 = {0}, c01 = {0}, c10 = {0}, c11 = {0}, c20 = {0}, c21 = {0}, c30 = {0}, c31 = {0};
  if (from) {
    c00 = CONST_AT(from), c01 = CONST_AT(from + LANES);
    c10 = CONST_AT(from + width), c11 = CONST_AT(from + width + LANES);
    c20 = CONST_AT(from + 2 * width), c21 = CONST_AT(from + 2 * width + LANES);
    c30 = CONST_AT(from + 3 * width), c31 = CONST_AT(from + 3 * width + LANES);
  }
  for (int k = 0; k < depth; k++, a += term, b += width) {
    const pack b0 = CONST_AT(b), b1 = CONST_AT(b + LANES);
    c00 += a[0] * b0, c01 += a[0] * b1;
    c10 += a[row] * b0, c11 += a[row] * b1;
    c20 += a[2 * row] * b0, c21 += a[2 * row] * b1;
    c30 += a[3 * row] * b0, c31 += a[3 * row] * b1;
  }
  AT(c) = c00, AT(c + LANES) = c01;
  AT(c + width) = c10, AT(c + width + LANES) = c11;
  AT(c + 2 * width) = c20, AT(c + 2 * width + LANES) = c21;
  AT(c + 3 * width) = c30, AT(c + 3 * width + LANES) = c31;
}

INLINE void panel_one(int depth, const double *a, int row, int term, const double *b, const double *from, double *c,
                      int width) {
  pack c0 = {0}, c1 = {0}, c2 = {0}, c3 = {0};
  if (from) {
    c0 = CONST_AT(from), c1 = CONST_AT(from + width);
    c2 = CONST_AT(from + 2 * width), c3 = CONST_AT(from + 3 * width);
  }
  for (int k = 0; k < depth; k++, a += term, b += width) {
    const pack b0 = CONST_AT(b);
    c0 += a[0] * b0, c1 += a[row] * b0, c2 += a[2 * row] * b0, c3 += a[3 * row] * b0;
  }
  AT(c) = c0, AT(c + width) = c1, AT(c + 2 * width) = c2, AT(c + 3 * width) = c3;
}

INLINE void panel_row(int depth, const double *a, int term, const double *b, const double *from, double *c,
                      int width) {
  pack sum = {0};
  if (from) sum = CONST_AT(from);
  for (int k = 0; k < depth; k++, a += term, b += width) sum += a[0] * CONST_AT(b);
  AT(c) = sum;
}

/* Rows first … last - 1 of C from column `column` to `width`; with `triangle`, from the diagonal on. */
INLINE void multiply(int first, int last, int depth, const double *a, int row, int term, const double *b,
                     const double *from, double *c, int width, int triangle) {
  const int whole = first + (last - first) / 4 * 4;
  for (int i = first; i < whole; i += 4) {
    int j = triangle ? i / PACK * PACK : 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES)
      panel_two(depth, a + i * row, row, term, b + j, from ? from + i * width + j : 0, c + i * width + j, width);
    if (j < width)
      panel_one(depth, a + i * row, row, term, b + j, from ? from + i * width + j : 0, c + i * width + j, width);
  }
  for (int i = whole; i < last; i++)
    for (int j = triangle ? i / PACK * PACK : 0; j < width; j += LANES)
      panel_row(depth, a + i * row, term, b + j, from ? from + i * width + j : 0, c + i * width + j, width);
}

#ifdef __AVX__ /* the compilers' own names: <immintrin.h> takes half a second to read */
typedef double aligned_pack __attribute__((vector_size(8 * LANES), may_alias));
#ifdef __clang__
#define STREAM(to, values) __builtin_nontemporal_store((aligned_pack)(values), (aligned_pack *)(to))
#else
#define STREAM(to, values) __builtin_ia32_movntpd256(to, (aligned_pack)(values))
#endif
#endif

/* Copy what is not read again soon past the caches: nothing is fetched to be overwritten, and nothing thrown out. */
INLINE void put_away(const double *from, double *to, long count) {
  long i = 0;
#ifdef __AVX__
  enum { LEAST = 64 }; /* below, parts of cache lines cost more than is saved */
  if (count >= LEAST) {
    for (; (uintptr_t)(to + i) % sizeof(pack); i++) to[i] = from[i];
    for (; i + PACK <= count; i += PACK) STREAM(to + i, CONST_AT(from + i));
  }
#endif
  for (; i < count; i++) to[i] = from[i];
}

/* a'b */
INLINE double dot(const double *a, const double *b, int count) {
  pack sum = {0};
  double total = 0;
  int i = 0;
  for (; i + LANES <= count; i += LANES) sum += CONST_AT(a + i) * CONST_AT(b + i);
  for (; i < count; i++) total += a[i] * b[i];
  for (int lane = 0; lane < LANES; lane++) total += sum[lane];
  return total;
}

/* z'Hz / 2 for a symmetric H with rows `width` apart. */
INLINE double quadratic(const double *H, const double *z, int count, int width) {
  double sum = 0;
  for (int i = 0; i < count; i++) sum += z[i] * dot(H + i * width, z, count);
  return sum / 2;
}
