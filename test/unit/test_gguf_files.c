/* gguf and map, with the file system: models in several files, paths that lead to no file, and
 * files that shrink under the mapping. */
#include "check.h"
#include "gguf_writer.h"
#include "../../src/base/map.h"

#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Split models ---- */

enum { N_SHARDS = 3 };

typedef struct Folder {
    char path[64];
} Folder;

static Folder new_folder(void) {
    Folder f = {"/tmp/zgen-test-XXXXXX"};
    if (!mkdtemp(f.path)) abort();
    return f;
}

static const char *path_in(const Folder *f, const char *name) {
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    return path;
}

static void remove_folder(const Folder *f) {
    glob_t files;
    if (glob(path_in(f, "*"), 0, NULL, &files) == 0) {
        for (size_t i = 0; i < files.gl_pathc; i++) remove(files.gl_pathv[i]);
        globfree(&files);
    }
    rmdir(f->path);
}

static void write_file(const Folder *f, const char *name, const Buf *b) {
    FILE *file = fopen(path_in(f, name), "wb");
    if (!file || (b->n && fwrite(b->data, 1, b->n, file) != b->n) || fclose(file) != 0) abort();
}

/* Shard no of N_SHARDS holds one tensor of 8 floats; `total` is its count of all tensors. */
static void write_shard(const Folder *f, const char *name, int no, int count, const char *tensor, int total) {
    Buf b = {0};
    put_header(&b, 3, 1, no == 0 ? 4 : 3);
    put_key(&b, "split.no", U16, &(uint16_t){(uint16_t)no}, 2);
    put_key(&b, "split.count", U16, &(uint16_t){(uint16_t)count}, 2);
    put_key(&b, "split.tensors.count", I32, &(int32_t){total}, 4);
    if (no == 0) put_key_string(&b, "general.name", "first");
    put_vector(&b, tensor, 8, 0);
    pad(&b, 32, 32);
    b.data[b.n - 1] = (char)no;
    write_file(f, name, &b);
    buf_free(&b);
}

static Folder write_shards(void) {
    Folder f = new_folder();
    write_shard(&f, "m-00001-of-00003.gguf", 0, N_SHARDS, "a", 3);
    write_shard(&f, "m-00002-of-00003.gguf", 1, N_SHARDS, "b", 3);
    write_shard(&f, "m-00003-of-00003.gguf", 2, N_SHARDS, "c", 3);
    return f;
}

TEST(gguf_opens_a_split_model_from_any_shard) {
    Folder f = write_shards();
    for (int i = 0; i < N_SHARDS; i++) {
        char name[40];
        snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", i + 1, N_SHARDS);
        Gguf *g;
        Err e = {0};
        GgufString s = {0};
        if (!gguf_open(path_in(&f, name), &g, &e)) {
            test_fail(__FILE__, __LINE__, "%s", e.text);
            continue;
        }
        CHECK(gguf_n_shards(g) == N_SHARDS && gguf_n_tensors(g) == 3);
        CHECK(gguf_get_string(g, "general.name", &s, &e) && text_is(s, "first"));
        for (int j = 0; j < 3; j++) {
            const GgufTensor *t = gguf_find_tensor(g, j == 0 ? "a" : j == 1 ? "b" : "c");
            CHECK(t && t == gguf_tensor(g, j) && t->data[31] == j);
        }
        CHECK(strcmp(gguf_label(g), path_in(&f, name)) == 0);
        gguf_close(g);
    }
    remove_folder(&f);
}

static void refuse_split(const Folder *f, const char *name, const char *wanted) {
    Gguf *g = NULL;
    Err e = {0};
    bool opened = gguf_open(path_in(f, name), &g, &e);
    if (opened || !says(&e, wanted))
        test_fail(__FILE__, __LINE__, "%s: %s; expected %s", name, opened ? "opened" : e.text, wanted);
    gguf_close(g);
}

TEST(gguf_refuses_broken_splits) {
    const char *first = "m-00001-of-00003.gguf", *second = "m-00002-of-00003.gguf",
               *third = "m-00003-of-00003.gguf";
    Folder f = write_shards();
    remove(path_in(&f, second));
    refuse_split(&f, first, "shard 2 of 3: ");
    refuse_split(&f, third, "no such file");
    write_shard(&f, second, 1, N_SHARDS, "a", 3);
    refuse_split(&f, first, "tensor 'a' occurs twice");
    refuse_split(&f, first, second);
    write_shard(&f, second, 2, N_SHARDS, "b", 3);
    refuse_split(&f, first, "not shard 2 of 3");
    write_shard(&f, second, 1, 4, "b", 3);
    refuse_split(&f, first, "not shard 2 of 3");
    write_shard(&f, second, 1, N_SHARDS, "b", 99);
    refuse_split(&f, first, "not shard 2 of 3");
    write_shard(&f, second, 0, 0, "b", 3);
    refuse_split(&f, first, "not shard 2 of 3");
    write_shard(&f, second, 1, N_SHARDS, "b", 3);
    write_shard(&f, "other.gguf", 0, N_SHARDS, "b", 3);
    refuse_split(&f, "other.gguf", "its name does not end in -00001-of-00003.gguf");
    write_shard(&f, third, 1, N_SHARDS, "c", 3);
    refuse_split(&f, third, "does not end in -00002-of-00003.gguf");
    write_shard(&f, "n-00001-of-00001.gguf", 0, 1000, "c", 3);
    refuse_split(&f, "n-00001-of-00001.gguf", "'split.count' is 1000");
    write_shard(&f, "n-00001-of-00001.gguf", 4, 3, "c", 3);
    refuse_split(&f, "n-00001-of-00001.gguf", "'split.no' is 4");
    remove_folder(&f);

    f = new_folder();
    write_shard(&f, "m-00001-of-00002.gguf", 0, 2, "a", 3);
    write_shard(&f, "m-00002-of-00002.gguf", 1, 2, "b", 3);
    refuse_split(&f, "m-00001-of-00002.gguf", "hold 2 tensors, but should hold 3");
    remove_folder(&f);
}

TEST(gguf_refuses_a_shard_in_memory) {
    Folder f = write_shards();
    Buf b = {0};
    REQUIRE(read_file(path_in(&f, "m-00001-of-00003.gguf"), &b));
    Gguf *g = NULL;
    Err e = {0};
    CHECK(!gguf_open_bytes(b.data, b.n, "x.gguf", &g, &e) && !g && says(&e, "one shard of a split model"));
    buf_free(&b);
    remove_folder(&f);
}

/* ---- Files that are no files, and files that shrink ---- */

static void refuse_path(const char *path, const char *wanted) {
    Map m;
    Err e = {0};
    bool opened = map_open(path, "a GGUF file", &m, &e);
    if (opened || m.data || !says(&e, wanted))
        test_fail(__FILE__, __LINE__, "%.60s: \"%s\"; expected \"%s\"", path, opened ? "opened" : e.text,
                  wanted);
}

TEST(map_refuses_what_is_no_file) {
    Folder f = new_folder();
    Buf empty = {0};
    char *very_long = malloc(6000);
    memset(very_long, 'a', 5999);
    very_long[5999] = 0;
    refuse_path("", "empty");
    refuse_path(path_in(&f, "missing.gguf"), "missing.gguf: there is no such file");
    refuse_path(path_in(&f, "new\nline"), "new\\nline: there is no such file");
    refuse_path(very_long, "File name too long");
    refuse_path(f.path, "a directory");
    refuse_path("/dev/zero", "a device");
    refuse_path("/dev/null", "a device");
    mkfifo(path_in(&f, "fifo"), 0600);
    refuse_path(path_in(&f, "fifo"), "a pipe");
    write_file(&f, "empty", &empty);
    refuse_path(path_in(&f, "empty"), "the file is empty");
    chmod(path_in(&f, "empty"), 0);
    if (geteuid() != 0) refuse_path(path_in(&f, "empty"), "permission denied");
    free(very_long);
    remove_folder(&f);
}

/* Maps two pages of a file, cuts it, and touches the second through `data` in a child; what the child says on
 * stderr comes back in said.  Returns its wait status. */
static int shrink_and_touch(const char *path, bool through_map, char *said, size_t size) {
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) abort();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipe_ends[1], 2);
        Map m;
        Err e;
        if (!map_open(path, "a GGUF file", &m, &e)) _exit(99);
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        int fd = open(path, O_RDWR);
        const volatile uint8_t *data = m.data;
        if (!through_map) data = mmap(NULL, 2 * page, PROT_READ, MAP_PRIVATE, fd, 0);
        if (ftruncate(fd, (off_t)page) != 0) _exit(98);
        _exit(data[page] + 90);
    }
    close(pipe_ends[1]);
    size_t n = 0;
    for (ssize_t more; n < size - 1 && (more = read(pipe_ends[0], said + n, size - 1 - n)) > 0;)
        n += (size_t)more;
    said[n] = 0;
    close(pipe_ends[0]);
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

TEST(map_turns_a_shrinking_file_into_a_sentence) {
    Folder f = new_folder();
    Buf b = {0};
    pad(&b, 1, 2 * (size_t)sysconf(_SC_PAGESIZE));
    char said[4000], path[200];
    snprintf(path, sizeof path, "%s", path_in(&f, "sh\nrink"));
    write_file(&f, "sh\nrink", &b);
    int status = shrink_and_touch(path, true, said, sizeof said);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == ERR_MODEL);
    CHECK(strncmp(said, "zgen: ", 6) == 0 && strstr(said, "/sh\\nrink: the file was cut short"));
    CHECK(strchr(said, '\n') == said + strlen(said) - 1);

    write_file(&f, "sh\nrink", &b);
    status = shrink_and_touch(path, false, said, sizeof said);
    CHECK(!strstr(said, "cut short"), "a mapping that is not ours dies as it would without us");
    CHECK(SANITIZED ? WIFEXITED(status) && WEXITSTATUS(status) != ERR_MODEL
                    : WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    buf_free(&b);
    remove_folder(&f);
}
