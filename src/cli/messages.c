/* messages: see messages.h. */
#include "messages.h"
#include "atomic_file.h"
#include "out.h"
#include "prompt.h"
#include "stop.h"
#include "../base/inputs.h"
#include "../base/json.h"
#include "../text/saved.h"

#include <string.h>
#include <unistd.h>

static const char GENERATION[] = "add_generation_prompt"; // a variable of templates, true where none sets it
static const char CONTINUE[] = "continue_final_message";  // see chat_continues

bool messages_wanted(const Options *o) {
    return o->single_turn || o->messages || o->chat_template || o->system || o->system_file || o->think ||
           o->chat_kwargs || o->continues || o->reasoning_budget >= 0;
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

bool messages_has_system(const Session *s) {
    size_t n = json_array_size(session_messages(s));
    const char *first = n ? messages_role(s, n - 1) : "";
    return strcmp(first, "system") == 0 || strcmp(first, "developer") == 0;
}

void messages_set_system(Session *s, const char *text, size_t n) {
    json_t *messages = session_messages(s);
    size_t last = json_array_size(messages);
    if (messages_has_system(s)) {
        json_array_remove(messages, 0);
        last--;
    }
    session_add(s, "system", text, n);
    json_t *system = json_incref(json_array_get(messages, last));
    json_array_remove(messages, last);
    json_array_insert_new(messages, 0, system);
}

/* ---- files ---- */

/* The variables of --chat-template-kwargs. */
static bool add_kwargs(const char *text, json_t *object, Err *e) {
    json_error_t why;
    json_t *more = json_read(text, strlen(text), &why);
    bool ok = json_is_object(more) && !json_object_get(more, "messages");
    if (ok) json_object_update(object, more);
    if (!more) err_set(e, ERR_USAGE, "--chat-template-kwargs, column %d: not JSON: %s", why.column, why.text);
    if (more && !ok)
        err_set(e, ERR_USAGE,
                "--chat-template-kwargs must be a JSON object like {\"enable_thinking\": false}, without "
                "\"messages\"");
    json_decref(more);
    return ok;
}

static bool is_thought_off(const Options *o) {
    return o->reasoning_budget == 0 || (o->think && strcmp(o->think, "off") == 0);
}

/* Adds the variables that the options set; for --think two names, as templates use either for their
 * switch, and for the budget the one of the templates that tell it to the model. */
static bool add_variables(const Options *o, json_t *object, Err *e) {
    if (!json_object_get(object, GENERATION)) json_object_set_new(object, GENERATION, json_true());
    if (o->continues) json_object_set_new(object, CONTINUE, json_true());
    bool off = is_thought_off(o);
    if (o->think || off) {
        json_object_set_new(object, "enable_thinking", json_boolean(!off));
        json_object_set_new(object, "thinking", json_boolean(!off));
    }
    if (off || o->reasoning_budget > 0)
        json_object_set_new(object, "thinking_budget", json_integer(off ? 0 : o->reasoning_budget));
    return !o->chat_kwargs || add_kwargs(o->chat_kwargs, object, e);
}

/* Replaces all variables by those of the object, which is taken over, and those that the options set.  false:
 * ERR_USAGE, and nothing is changed. */
static bool set_variables(json_t *object, const Options *o, Session *s, Err *e) {
    if (!add_variables(o, object, e)) {
        json_decref(object);
        return false;
    }
    json_decref(s->variables);
    s->variables = object;
    return true;
}

void messages_end_continuation(Session *s) {
    json_object_del(s->variables, CONTINUE);
}

/* The object of a file in the format of --messages; NULL: *e. */
static json_t *read_conversation(const char *path, Err *e) {
    Buf text = {0};
    bool ok = prompt_read_file(path, "the messages", &text, e);
    json_t *object = ok ? saved_read(text.data, text.n, path, e) : NULL;
    buf_free(&text);
    return object;
}

bool messages_load(const char *path, const Options *o, Session *s, Err *e) {
    json_t *object = read_conversation(path, e);
    if (!object) return false;
    inputs_remove(path); // it is saved where it was loaded from
    return set_variables(object, o, s, e);
}

bool messages_save(const char *path, const Session *s, Err *e) {
    AtomicFile file;
    Buf text = {0};
    json_t *object = json_copy(s->variables);
    if (json_is_true(json_object_get(object, GENERATION))) json_object_del(object, GENERATION); // the default
    saved_write(object, &text);
    bool ok = atomic_file_open(&file, path, e) &&
              atomic_file_close(&file, out_write_to(file.fd, path, text.data, text.n, e), e);
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
    if (o->system_file) prompt_unify_lines(&text);
    if (ok) messages_set_system(s, text.data, text.n);
    buf_free(&text);
    return ok;
}

bool messages_begin(const Options *o, Session *s, Err *e) {
    s->stop = stop_wanted;
    s->no_thought = is_thought_off(o);
    return set_variables(json_pack("{s:[]}", "messages"), o, s, e) &&
           (!o->messages || messages_load(o->messages, o, s, e)) && set_system(o, s, e);
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

static const char TEMPLATE_KEY[] =
    "tokenizer.chat_template"; // in the file; ".NAME" behind it: one of several

/* The names of the model's templates and of the known formats. */
static void list_names(const Gguf *model, Buf *out) {
    const GgufString *names = NULL;
    size_t n = 0;
    Err ignored;
    if (model && gguf_get_strings(model, "tokenizer.chat_templates", &names, &n, &ignored))
        for (size_t i = 0; i < n; i++) buf_printf(out, "%.*s, ", (int)names[i].n, names[i].data);
    for (size_t i = 0; chat_builtin_name(i); i++)
        buf_printf(out, "%s%s", i ? ", " : "", chat_builtin_name(i));
}

static bool no_template(int code, const char *what, const Gguf *model, Err *e) {
    Buf names = {0};
    list_names(model, &names);
    err_set(e, code, "%s; choose --chat-template FILE (Jinja) or one of: %s", what, names.data);
    buf_free(&names);
    return false;
}

/* Adds the model's template of this name, "" for the one without a name.  *has: there is one. */
static bool add_template(const char *name, const Gguf *model, Buf *source, bool *has, Err *e) {
    GgufString text = {0};
    char key[200];
    int n = snprintf(key, sizeof key, "%s%s%s", TEMPLATE_KEY, *name ? "." : "", name);
    if (model && n < (int)sizeof key && !gguf_get_string(model, key, &text, e)) return false;
    buf_add(source, text.data, text.n);
    *has = text.n > 0;
    return true;
}

static bool find_template(const char *name, const Gguf *model, Session *s, Err *e) {
    const char *builtin = chat_builtin_template(name);
    bool has, is_text = strstr(name, "{{") || strstr(name, "{%");
    if (!add_template(name, model, &s->source, &has, e) || has) return has;
    if (builtin || is_text) {
        buf_add(&s->source, builtin ? builtin : name, strlen(builtin ? builtin : name));
        return true;
    }
    if (strcmp(name, "-") == 0 || access(name, F_OK) == 0)
        return prompt_read_file(name, "the chat template", &s->source, e);
    char what[300];
    snprintf(what, sizeof what, "there is no chat template and no file '%.200s'", name);
    return no_template(ERR_USAGE, what, model, e);
}

bool messages_template(const char *name, const Gguf *model, Session *s, Err *e) {
    buf_clear(&s->source);
    if (name) return find_template(name, model, s, e);
    bool has = false, has_tools = json_array_size(json_object_get(s->variables, "tools")) > 0;
    if (has_tools && !add_template("tool_use", model, &s->source, &has, e)) return false;
    if (!has && !add_template("", model, &s->source, &has, e)) return false;
    return has || no_template(ERR_MODEL, "the model has no chat template", model, e);
}
