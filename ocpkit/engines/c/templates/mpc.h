
/* Model predictive control. */
enum { ${name}_STATE = $n, ${name}_CONTROL = $m }; /* sizes of one state and of one control */

/* A controller's memory. Zero, as static memory is, it has no plan yet. */
typedef struct {
  ${name}_workspace solver;
  double states[$states], controls[$space], feedback_gains[$gains]; /* the plan, `offset` ticks old */
  long planned, has_gains, offset;
} ${name}_mpc;

/* ${name}_command.health: converged; stopped early, but usable; the last usable plan goes on; there is none (u is NaN) */
enum { ${name}_OPTIMAL, ${name}_IMPROVING, ${name}_HELD, ${name}_LOST };

typedef struct {
  long health, status, iterations, offset;
  double cost, gap;
} ${name}_command;

/* One tick: the control u for the state x just measured. The guess is the last usable plan, shifted by a stage for every
   tick since it was made; one iteration is a real-time iteration. While there is no plan, the tick takes up to
   ${name}_MAX_ITERATIONS from the guess of `solver`. A measurement that is not finite (status ${name}_INVALID_INPUT) is
   left out: the last plan goes on without feedback. Uses no other memory than the controller's and some stack. */
${name}_command ${name}_mpc_step(${name}_mpc *controller, const double *x, const double *parameters, long iterations,
                                 double *u);
