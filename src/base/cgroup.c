/* cgroup: see cgroup.h.  The one trick: files of the two versions have different names, so that a folder is asked for
 * both, and the version matters only for finding it. */
#include "cgroup.h"
#include "proc_file.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Mount { // of a hierarchy
    char group[PATH_MAX], folder[PATH_MAX];
    char type[64], options[1000];
} Mount;

/* Whether a list like "cpu,cpuacct" has the word. */
static bool has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ',') && strchr(",\n", at[n])) return true;
    return false;
}

/* Opens a file of /proc/self below root. */
static FILE *open_self(const char *root, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/proc/self/%s", root, name);
    return fopen(path, "re");
}

/* The process's group in the hierarchy of a controller; of version 2 where controller is "", which has one hierarchy.
 * Lines are "4:cpu,cpuacct:/a/b" and "0::/a/b".  false: the process is in none. */
static bool find_group(const char *root, const char *controller, char out[PATH_MAX]) {
    FILE *f = open_self(root, "cgroup");
    char line[2 * PATH_MAX];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':'), *group = list ? strchr(++list, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        found = *controller ? has_word(list, controller) : !*list;
        if (found) snprintf(out, PATH_MAX, "%.*s", (int)strcspn(group, "\n"), group);
    }
    if (f) fclose(f);
    return found;
}

/* The kernel writes white space and backslashes of paths as \ooo. */
static void unescape(char *path) {
    char *to = path;
    for (const char *at = path; *at; to++) {
        unsigned c;
        int n = 0;
        bool is_octal = sscanf(at, "\\%3o%n", &c, &n) == 1 && n == 4;
        *to = is_octal ? (char)c : *at;
        at += is_octal ? 4 : 1;
    }
    *to = '\0';
}

/* Lines are "32 31 0:29 GROUP FOLDER rw,relatime shared:7 - TYPE source OPTIONS". */
static bool read_mount(const char *line, Mount *m) {
    const char *rest = strstr(line, " - ");
    *m = (Mount){0};
    if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", m->group, m->folder) != 2 ||
        sscanf(rest, " - %63s %*s %999s", m->type, m->options) < 1)
        return false;
    unescape(m->group);
    unescape(m->folder);
    return true;
}

/* What is left by the process's group below a mount, and by all above it up to the one at the mount point. */
static double least_below(const char *root, const Mount *m, const char *group, double (*left)(const char *)) {
    char folder[3 * PATH_MAX];
    size_t n = strcmp(m->group, "/") == 0 ? 0 : strlen(m->group);
    bool is_below = strncmp(group, m->group, n) == 0 && (group[n] == '/' || !group[n]);
    const char *below = is_below && strcmp(group + n, "/") != 0 ? group + n : "";
    int n_mount = snprintf(folder, sizeof folder, "%s%s", root, m->folder);
    snprintf(folder + n_mount, sizeof folder - (size_t)n_mount, "%s", below);
    for (double least = INFINITY;;) {
        least = fmin(least, left(folder));
        char *slash = strrchr(folder + n_mount, '/');
        if (!slash) return least;
        *slash = '\0';
    }
}

/* The least of all groups; `left` gives what the group of a folder leaves, INFINITY without a limit. */
static double least(const char *root, const char *controller, double (*left)(const char *folder)) {
    FILE *f = open_self(root, "mountinfo");
    char line[4 * PATH_MAX], group[PATH_MAX];
    double result = INFINITY;
    Mount m;
    while (f && fgets(line, sizeof line, f)) {
        if (!read_mount(line, &m)) continue;
        bool is_v2 = strcmp(m.type, "cgroup2") == 0;
        if (!is_v2 && (strcmp(m.type, "cgroup") != 0 || !has_word(m.options, controller))) continue;
        if (find_group(root, is_v2 ? "" : controller, group))
            result = fmin(result, least_below(root, &m, group, left));
    }
    if (f) fclose(f);
    return result;
}

/* A number of a file of a group; -1: see proc_number. */
static double number(const char *folder, const char *file, const char *label) {
    char path[4 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return proc_number(path, label);
}

/* CPUs; version 2 has "quota period" or "max period" in one file, version 1 a quota of -1 without a limit. */
static double cpus_of(const char *folder) {
    char path[4 * PATH_MAX];
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    FILE *f = fopen(path, "re");
    double quota = -1, period = -1;
    if (!f) {
        quota = number(folder, "cpu.cfs_quota_us", "");
        period = number(folder, "cpu.cfs_period_us", "");
    } else {
        if (fscanf(f, "%lf %lf", &quota, &period) != 2) quota = -1;
        fclose(f);
    }
    return quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* Bytes below a limit; the counters of version 1 that hold for the groups below, too, begin with total_. */
static double bytes_below(const char *folder, const char *limit_file, const char *used_file,
                          const char *prefix) {
    double limit = number(folder, limit_file, ""), used = number(folder, used_file, "");
    if (limit < 0 || used < 0) return INFINITY;
    static const char *const reclaimable[] = {"inactive_file ", "active_file "};
    for (int i = 0; i < 2; i++) {
        char label[40];
        snprintf(label, sizeof label, "%s%s", prefix, reclaimable[i]);
        used -= fmax(number(folder, "memory.stat", label), 0);
    }
    return fmax(limit - fmax(used, 0), 0);
}

/* Above memory.high a process is not refused memory, but stopped until the kernel has reclaimed some. */
static double bytes_of(const char *folder) {
    double left = bytes_below(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_");
    left = fmin(left, bytes_below(folder, "memory.max", "memory.current", ""));
    return fmin(left, bytes_below(folder, "memory.high", "memory.current", ""));
}

int cgroup_cpus(const char *root) {
    double cpus = least(root, "cpu", cpus_of);
    return cpus >= INT_MAX ? INT_MAX : cpus < 1 ? 1 : (int)cpus;
}

double cgroup_memory(const char *root) {
    return least(root, "memory", bytes_of);
}
