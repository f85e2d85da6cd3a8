/* Solve $title once and print what was found. */
#include <stdio.h>

#include "$name.h"

int main(void) {
  static ${name}_workspace workspace;
  const ${name}_result result = ${name}_solve(&workspace, 0, 0, ${name}_MAX_ITERATIONS);
  printf("status %ld iterations %ld cost %.17g gradient %.17g\n", result.status, result.iterations, result.cost,
         result.gradient_norm);
  for (int i = 0; i < ${name}_CONTROLS; i++) printf("%.17g\n", result.controls[i]);
  return result.status == ${name}_CONVERGED ? 0 : 1;
}
