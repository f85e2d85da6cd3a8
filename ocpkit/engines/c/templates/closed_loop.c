/* Control the model of $title in a closed loop: closed_loop [TICKS [ITERATIONS [PUSH]]].
   ITERATIONS are those of a tick, PUSH is the largest disturbance of a state at each of them. Prints a line per tick:
   processor time [us], health, status, iterations, plan's age, gap, J, the state measured and the control applied. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "$name.h"

static double between(double least, double most) { return least + (most - least) * rand() / RAND_MAX; }

int main(int count, char **words) {
  static ${name}_mpc controller;
  const long ticks = count > 1 ? atol(words[1]) : 100, iterations = count > 2 ? atol(words[2]) : 1;
  const double push = count > 3 ? atof(words[3]) : 0;
  double x[${name}_STATE] = {$x0}, following[${name}_STATE], u[${name}_CONTROL];
  for (long tick = 0; tick < ticks; tick++) {
    const clock_t begin = clock();
    const ${name}_command command = ${name}_mpc_step(&controller, x, 0, iterations, u);
    const double microseconds = 1e6 * (double)(clock() - begin) / CLOCKS_PER_SEC;
    printf("%.0f %ld %ld %ld %ld %.17g %.17g", microseconds, command.health, command.status, command.iterations,
           command.offset, command.gap, command.cost);
    for (int i = 0; i < ${name}_STATE; i++) printf(" %.17g", x[i]);
    for (int i = 0; i < ${name}_CONTROL; i++) printf(" %.17g", u[i]);
    printf("\n");
    if (command.health == ${name}_LOST) return 1;
    ${name}_model(0, x, u, 0, following);
    for (int i = 0; i < ${name}_STATE; i++) x[i] = following[i] + between(-push, push);
  }
  return 0;
}
