/* proc_file: see proc_file.h.  Opened by each call: the numbers change. */
#include "proc_file.h"

#include <stdio.h>
#include <string.h>

double proc_number(const char *path, const char *label) {
    FILE *f = fopen(path, "re");
    char line[300];
    double value = -1;
    size_t n = strlen(label);
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, label, n) != 0) continue;
        if (sscanf(line + n, "%lf", &value) != 1) value = -1;
        break;
    }
    if (f) fclose(f);
    return value;
}
