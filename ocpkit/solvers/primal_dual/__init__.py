"""The primal-dual interior point: a filter line search on the structured KKT system of multiple shooting."""
