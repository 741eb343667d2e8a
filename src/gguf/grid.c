/* grid: the tables of grid.h for the host, made before main: 34 KB, in less than a millisecond. */
#include "grid.h"

static QuantGrids grids;
const QuantGrids *const quant_grids_host = &grids;

__attribute__((constructor)) static void fill(void) {
    grids_fill(&grids);
}
