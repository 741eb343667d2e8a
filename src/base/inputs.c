/* inputs: see inputs.h.  Files are opened by one thread, so that the list has no lock. */
#include "inputs.h"
#include "mem.h"

#include <stddef.h>

typedef struct Input {
    dev_t device;
    ino_t inode;
} Input;

static Input *inputs; // [n_inputs]
static size_t n_inputs;

static bool same(const Input *input, const struct stat *file) {
    return input->device == file->st_dev && input->inode == file->st_ino;
}

/* The place of a file in the list; n_inputs where it is not. */
static size_t find(const struct stat *file) {
    size_t i = 0;
    while (i < n_inputs && !same(&inputs[i], file)) i++;
    return i;
}

void inputs_add(int fd) {
    struct stat file;
    if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || find(&file) < n_inputs) return;
    inputs = mem_resize(inputs, (n_inputs + 1) * sizeof *inputs);
    inputs[n_inputs++] = (Input){file.st_dev, file.st_ino};
}

bool inputs_have(const struct stat *file) {
    struct stat self;
    if (stat("/proc/self/exe", &self) == 0 && same(&(Input){self.st_dev, self.st_ino}, file)) return true;
    return find(file) < n_inputs;
}

void inputs_remove(const char *path) {
    struct stat file;
    size_t i = stat(path, &file) == 0 ? find(&file) : n_inputs;
    if (i < n_inputs) inputs[i] = inputs[--n_inputs];
}
