/* messages: see messages.h. */
#include "messages.h"
#include "atomic_file.h"
#include "out.h"
#include "prompt.h"
#include "show.h"
#include "stop.h"
#include "../base/inputs.h"

#include <string.h>
#include <unistd.h>

static const char GENERATION[] = "add_generation_prompt"; // a variable of templates, true where none sets it

bool messages_wanted(const Options *o) {
    return o->single_turn || o->messages || o->chat_template || o->system || o->system_file || o->think;
}

bool messages_hide_thoughts(const char *think) {
    return think && strcmp(think, "show") != 0;
}

const char *messages_role(const Session *s, size_t i) {
    const json_t *messages = session_messages(s);
    size_t n = json_array_size(messages);
    if (i >= n) return "";
    const char *role = json_string_value(json_object_get(json_array_get(messages, n - 1 - i), "role"));
    return role ? role : "";
}

void messages_set_system(Session *s, const char *text, size_t n) {
    json_t *messages = session_messages(s);
    size_t last = json_array_size(messages);
    if (last && strcmp(messages_role(s, last - 1), "system") == 0) {
        json_array_remove(messages, 0);
        last--;
    }
    session_add(s, "system", text, n);
    json_t *system = json_incref(json_array_get(messages, last));
    json_array_remove(messages, last);
    json_array_insert_new(messages, 0, system);
}

/* ---- files ---- */

/* Replaces all variables by those of the object, which is taken over, and those that the options set: the two
 * names that templates use for their switch of thinking. */
static void set_variables(json_t *object, const Options *o, Session *s) {
    json_decref(s->variables);
    s->variables = object;
    if (!json_object_get(object, GENERATION)) json_object_set_new(object, GENERATION, json_true());
    if (!o->think) return;
    json_t *on = json_boolean(strcmp(o->think, "off") != 0);
    json_object_set(object, "enable_thinking", on);
    json_object_set(object, "thinking", on);
}

/* The object of a file in the format of --messages; NULL: *e. */
static json_t *read_conversation(const char *path, Err *e) {
    Buf text = {0};
    json_error_t why;
    bool ok = prompt_read_file(path, "the messages", &text, e);
    json_t *object = ok ? json_loadb(text.n ? text.data : "", text.n, JSON_ALLOW_NUL, &why) : NULL;
    buf_free(&text);
    if (ok && !object)
        err_set(e, ERR_RUN, "%.500s, line %d, column %d: not JSON: %s", path, why.line, why.column, why.text);
    if (!object || json_is_array(json_object_get(object, "messages"))) return object;
    err_set(e, ERR_RUN,
            "%.500s: \"messages\" is missing; the format is "
            "{\"messages\": [{\"role\": \"user\", \"content\": \"...\"}]}",
            path);
    json_decref(object);
    return NULL;
}

bool messages_load(const char *path, const Options *o, Session *s, Err *e) {
    json_t *object = read_conversation(path, e);
    if (!object) return false;
    inputs_remove(path); // it is saved where it was loaded from
    set_variables(object, o, s);
    return true;
}

bool messages_save(const char *path, const Session *s, Err *e) {
    AtomicFile file;
    Buf text = {0};
    json_t *object = json_copy(s->variables);
    if (json_is_true(json_object_get(object, GENERATION))) json_object_del(object, GENERATION); // the default
    bool ok = show_dump(object, JSON_INDENT(1), &text, e) && atomic_file_open(&file, path, e);
    buf_printf(&text, "\n");
    ok = ok && atomic_file_close(&file, out_write_to(file.fd, path, text.data, text.n, e), e);
    buf_free(&text);
    json_decref(object);
    return ok;
}

/* ---- options ---- */

static bool set_system(const Options *o, Session *s, Err *e) {
    if (!o->system && !o->system_file) return true;
    if (o->system && o->system_file)
        return err_set(e, ERR_USAGE, "-sys and -sysf both give a system prompt; use one of them");
    Buf text = {0};
    bool ok = true;
    if (o->system)
        prompt_add(o->system, o->escape, &text);
    else
        ok = prompt_read_file(o->system_file, "the system prompt", &text, e);
    if (o->system_file && text.n && text.data[text.n - 1] == '\n') text.n--;
    if (ok) messages_set_system(s, text.data, text.n);
    buf_free(&text);
    return ok;
}

bool messages_begin(const Options *o, Session *s, Err *e) {
    s->stop = stop_wanted;
    set_variables(json_pack("{s:[]}", "messages"), o, s);
    return (!o->messages || messages_load(o->messages, o, s, e)) && set_system(o, s, e);
}

/* ---- the prompt ---- */

static bool is_known(const Buf *notes, const char *line, size_t n) {
    return notes->n && memmem(notes->data, notes->n, line, n);
}

bool messages_prompt(Session *s, Err *e) {
    Buf before = s->notes;
    s->notes = (Buf){0};
    bool ok = session_prompt(s, e);
    for (const char *line = s->notes.data, *end; line && (end = strchr(line, '\n')); line = end + 1)
        if (!is_known(&before, line, (size_t)(end + 1 - line))) err_warn("%.*s", (int)(end - line), line);
    buf_free(&before);
    return ok;
}

/* ---- the template ---- */

static void list_names(Buf *out) {
    for (size_t i = 0; chat_builtin_name(i); i++)
        buf_printf(out, "%s%s", i ? ", " : "", chat_builtin_name(i));
}

static bool no_template(int code, const char *what, Err *e) {
    Buf names = {0};
    list_names(&names);
    err_set(e, code, "%s; choose --chat-template FILE (Jinja) or one of: %s", what, names.data);
    buf_free(&names);
    return false;
}

static bool find_template(const char *name, Session *s, Err *e) {
    const char *builtin = chat_builtin_template(name);
    if (builtin) {
        buf_add(&s->source, builtin, strlen(builtin));
        return true;
    }
    if (strcmp(name, "-") == 0 || access(name, F_OK) == 0)
        return prompt_read_file(name, "the chat template", &s->source, e);
    char what[300];
    snprintf(what, sizeof what, "there is no chat template and no file '%.200s'", name);
    return no_template(ERR_USAGE, what, e);
}

bool messages_template(const char *name, const Gguf *model, Session *s, Err *e) {
    if (name) return find_template(name, s, e);
    GgufString text = {0};
    if (model && !gguf_get_string(model, "tokenizer.chat_template", &text, e)) return false;
    if (text.n == 0) return no_template(ERR_MODEL, "the model has no chat template", e);
    buf_add(&s->source, text.data, text.n);
    return true;
}
