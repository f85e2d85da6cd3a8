/* $title: a DDP solver. States, controls and gains lie stage after stage, matrices by rows. */
#ifndef $guard
#define $guard

#ifdef __cplusplus
extern "C" {
#endif

enum {
  ${name}_HORIZON = $horizon,
  ${name}_STATES = $states, /* of all $points states together */
  ${name}_CONTROLS = $controls, /* of all controls together */
  ${name}_PARAMETERS = $parameters, /* $rows */
  ${name}_MAX_ITERATIONS = $max_iterations
};

/* All memory of a solve. Zero, as static memory is, it starts from the problem's own controls. */
typedef struct {
  double x[$states], u[$space], x_new[$states], u_new[$space], gap[$states];
  double k[$space], K[$gains], Vx[$states], Vxx[$hessians], y[$space], scratch[$scratch];
  long guessed;
} ${name}_workspace;

/* ${name}_result.status */
enum { ${name}_RUNNING, ${name}_CONVERGED, ${name}_STALLED, ${name}_INFEASIBLE, ${name}_DIVERGED, ${name}_INVALID_INPUT,
       ${name}_GAVE_UP, ${name}_SADDLE /* stationary, and not known to be a minimum */ };

typedef struct {
  long status, iterations;
  double cost, gradient_norm;
  const double *states, *controls;
  const double *feedforward, *feedback_gains; /* u = controls + K (x - states)$modulo; null where there is no policy */
} ${name}_result;

/* Controls to start from; null: those of the problem. Without this call a solve starts from its predecessor's. */
void ${name}_guess(${name}_workspace *workspace, const double *controls);

/* Solve from x0 (null: the problem's) with parameters (null: the problem's). Status 0: the iteration limit was reached.
   What the result points to lies in the workspace, and lives until its next solve. */
${name}_result ${name}_solve(${name}_workspace *workspace, const double *x0, const double *parameters,
                             long max_iterations);

/* The next state of stage t. */
void ${name}_model(long t, const double *x, const double *u, const double *parameters, double *following);
$mpc
#ifdef __cplusplus
}
#endif

#endif
