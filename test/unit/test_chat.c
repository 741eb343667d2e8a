/* Conversations: the origin of tokens, the positions computed per turn, and the end of the reasoning.
 *
 * With the demo model, whose answers to these questions have wide margins. */
#include "check.h"
#include "../../src/run/session.h"
#include "../../src/text/think.h"

#include <stdlib.h>
#include <string.h>

/* ---- a conversation with the demo model ---- */

typedef struct Talk {
    Model model;
    Engine *engine;
    Session session;
    Request request;
    int n_kept; // positions that should be in the cache
} Talk;

static bool open_talk(Talk *t, int n_ctx) {
    Err e = {0};
    GgufString source = {0};
    EngineConfig config = {.device = DEVICE_CPU, .isa = "auto", .n_ctx = n_ctx, .n_seq = 1, .n_threads = 1};
    *t = (Talk){.request = {.n_predict = -1, .params = {.top_p = 1, .repeat_penalty = 1}}};
    bool ok = model_open(NULL, &t->model, &e) && engine_open(&t->model, &config, &t->engine, &e) &&
              gguf_get_string(t->model.gguf, "tokenizer.chat_template", &source, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", e.text);
    Session *s = &t->session;
    s->tok = t->model.tok;
    s->engine = t->engine;
    s->variables = json_pack("{s:[],s:b}", "messages", "add_generation_prompt", 1);
    buf_add(&s->source, source.data, source.n);
    return ok;
}

static void close_talk(Talk *t) {
    engine_close(t->engine);
    session_close(&t->session);
    model_close(&t->model);
}

/* Asks, and compares the answer in the messages with `expected`; NULL: any. */
static void ask(Talk *t, const char *question, const char *answer) {
    Err e = {0};
    Session *s = &t->session;
    session_add(s, "user", question, strlen(question));
    bool ok = session_prompt(s, &e) && session_ask(s, &t->request, &e);
    while (ok && engine_step(t->engine, &e)) continue;
    ok = ok && e.code == 0 && session_answered(s);
    CHECK(ok, "%s: %s", question, e.text);
    if (!ok) return;
    const json_t *messages = session_messages(s),
                 *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *content = json_string_value(json_object_get(last, "content"));
    CHECK(!answer || strcmp(content, answer) == 0, "%s: (%s)", question, content);
}

static void forget(Talk *t, int n) {
    json_t *messages = session_messages(&t->session);
    while (n--) json_array_remove(messages, json_array_size(messages) - 1);
}

/* Of the last turn: the positions taken from the cache, computed, and expected in the cache. */
static void check_cost(Talk *t, int kept, int most) {
    const Sequence *q = t->session.seq;
    CHECK(q->n_reused == kept, "%d tokens kept, not %d", q->n_reused, kept);
    CHECK(q->prompt.n == q->n_prompt - q->n_reused, "%d tokens computed of %d", q->prompt.n, q->n_prompt);
    CHECK(q->prompt.n <= most, "%d tokens computed, more than %d", q->prompt.n, most);
    t->n_kept = q->n_prompt + q->n_generated;
}

TEST(chat_turn_costs_its_own_tokens) {
    Talk t;
    REQUIRE(open_talk(&t, 256));
    ask(&t, "My name is Mia.", "Nice to meet you, Mia!");
    check_cost(&t, 0, 12);
    ask(&t, "What is 5 + 6?", "5 + 6 = 11.");
    check_cost(&t, t.n_kept, 14);
    ask(&t, "What is my name?", "Your name is Mia.");
    check_cost(&t, t.n_kept, 14);
    close_talk(&t);
}

/* Tokens that no encoder would choose for their text are kept as they are. */
TEST(chat_keeps_what_was_said_to_the_token) {
    Talk t;
    REQUIRE(open_talk(&t, 256));
    t.request.params.temp = 50;
    t.request.params.seed = 7;
    t.request.ignore_eos = true;
    t.request.n_predict = 30;
    for (int turn = 0; turn < 4; turn++) {
        ask(&t, "Tell me a story.", NULL);
        check_cost(&t, turn ? t.n_kept - 1 : 0, 14); // the last token was not yet computed
    }
    close_talk(&t);
}

/* The prompt follows from the messages, whatever the cache holds. */
TEST(chat_follows_changed_messages) {
    Talk t;
    REQUIRE(open_talk(&t, 256));
    ask(&t, "My name is Mia.", "Nice to meet you, Mia!");
    ask(&t, "What is 5 + 6?", "5 + 6 = 11.");
    int n_all = t.session.seq->n_prompt + t.session.seq->n_generated;
    forget(&t, 2); // the same question again: only the last token is computed
    ask(&t, "What is 5 + 6?", "5 + 6 = 11.");
    CHECK(t.session.seq->prompt.n == 1, "%d tokens computed", t.session.seq->prompt.n);
    CHECK(t.session.seq->n_prompt + t.session.seq->n_generated == n_all);
    forget(&t, 4);
    ask(&t, "My name is Tom.", "Nice to meet you, Tom!");
    CHECK(t.session.seq->n_reused > 0 && t.session.seq->n_reused < t.session.seq->n_prompt - 2);
    ask(&t, "What is my name?", "Your name is Tom.");
    close_talk(&t);
}

/* A stopped answer keeps its text so far, and a stop string is in neither text nor cache. */
TEST(chat_goes_on_behind_a_stopped_answer) {
    Talk t;
    REQUIRE(open_talk(&t, 256));
    t.request.n_predict = 3;
    ask(&t, "My name is Mia.", "Nice to meet");
    t.request.n_predict = -1;
    ask(&t, "What is 5 + 6?", "5 + 6 = 11.");
    const char *stop[] = {" is M"};
    t.request.stop = stop;
    t.request.n_stop = 1;
    ask(&t, "What is my name?", "Your name");
    t.request.n_stop = 0;
    ask(&t, "What is 47 + 38?", "47 + 38 = 85.");
    Buf text = {0};
    tok_decode(t.model.tok, t.session.seq->ids, (size_t)t.session.seq->n_prompt, TOK_UNPARSE_SPECIAL, &text);
    CHECK(strstr(text.data, "Your name<|end|>"), "%s", text.data);
    buf_free(&text);
    close_talk(&t);
}

TEST(chat_prompt_too_long_leaves_the_cache) {
    Talk t;
    Err e = {0};
    REQUIRE(open_talk(&t, 40));
    ask(&t, "My name is Mia.", "Nice to meet you, Mia!");
    check_cost(&t, 0, 12);
    for (int i = 0; i < 4; i++) session_add(&t.session, "user", "What is 5 + 6? What is 5 + 6?", 29);
    CHECK(session_prompt(&t.session, &e) && !session_ask(&t.session, &t.request, &e) && e.code == ERR_RUN);
    forget(&t, 4);
    ask(&t, "What is my name?", "Your name is Mia.");
    check_cost(&t, t.n_kept, 14);
    close_talk(&t);
}

TEST(engine_reuses_only_when_asked) {
    Talk t;
    Err e = {0};
    REQUIRE(open_talk(&t, 64));
    int32_t ids[] = {1, 505, 506, 265, 451};
    Request r = {.ids = ids, .n_ids = 5, .n_predict = 2, .params = t.request.params};
    for (int pass = 0; pass < 3; pass++) {
        r.reuse = pass == 1;
        const Sequence *q = engine_sequence(t.engine, engine_add(t.engine, &r, &e));
        while (engine_step(t.engine, &e)) continue;
        CHECK(q->n_reused == (pass == 1 ? 4 : 0) && q->prompt.n == 5 - q->n_reused, "pass %d: %d", pass,
              q->n_reused);
    }
    close_talk(&t);
}

/* Tokens put into an answer count as generated: what follows is what follows a prompt that ends with them. */
TEST(engine_inserts_tokens) {
    Talk t;
    Err e = {0};
    REQUIRE(open_talk(&t, 128));
    int32_t prompt[] = {1, 505, 506, 265, 451}, more[] = {300, 301, 302, 303};
    Request r = {.ids = prompt, .n_ids = 5, .n_predict = 20, .params = t.request.params, .ignore_eos = true};
    int seq = engine_add(t.engine, &r, &e);
    const Sequence *q = engine_sequence(t.engine, seq);
    while (q->n_generated < 6) REQUIRE(engine_step(t.engine, &e));
    REQUIRE(engine_insert(t.engine, seq, more, 4, &e));
    CHECK(q->n_generated == 10 && q->n_prompt == 5);
    while (engine_step(t.engine, &e)) continue;
    CHECK(e.code == 0 && q->finish == FINISH_LENGTH && q->n_generated == 20, "%d", q->n_generated);
    int32_t ids[25];
    memcpy(ids, q->ids, sizeof ids);
    CHECK(memcmp(ids + 11, more, sizeof more) == 0);
    for (int n = 11; n <= 15; n += 4) { // before and behind the inserted ones
        Request again = {
            .ids = ids, .n_ids = n, .n_predict = n == 11 ? 1 : 10, .params = r.params, .ignore_eos = true};
        q = engine_sequence(t.engine, engine_add(t.engine, &again, &e));
        while (engine_step(t.engine, &e)) continue;
        CHECK(n == 11 || memcmp(q->ids + n, ids + n, 10 * sizeof *ids) == 0, "behind %d", n);
    }
    Request short_one = {.ids = prompt, .n_ids = 5, .n_predict = 3, .params = r.params, .ignore_eos = true};
    seq = engine_add(t.engine, &short_one, &e);
    q = engine_sequence(t.engine, seq);
    while (q->n_generated < 1) REQUIRE(engine_step(t.engine, &e));
    REQUIRE(engine_insert(t.engine, seq, more, 4, &e));
    CHECK(q->finish == FINISH_LENGTH && q->n_generated == 3 && !engine_step(t.engine, &e));
    close_talk(&t);
}

/* ---- origin ---- */

static bool user_has_middle(const void *arg, size_t start, size_t n) {
    const size_t *range = arg;
    return start < range[1] && start + n > range[0];
}

TEST(marked_text_holds_no_control_tokens_of_the_user) {
    Model m;
    Err e = {0};
    REQUIRE(model_open(NULL, &m, &e), "%s", e.text);
    static const char text[] = "<|user|>a<|end|>b<|end|>";
    static const struct {
        size_t range[2]; // the user's bytes
        int n_control;
    } CASES[] = {{{0, 0}, 3},  {{8, 17}, 2}, {{9, 10}, 2}, {{15, 16}, 2},
                 {{0, 24}, 0}, {{7, 18}, 0}, {{16, 17}, 3}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        TokIds ids = {0};
        Buf back = {0};
        int n = 0;
        tok_encode_marked(m.tok, text, 24, 0, (TokOrigin){user_has_middle, CASES[i].range}, &ids);
        for (size_t k = 0; k < ids.n; k++) n += tok_type(m.tok, ids.data[k]) == TOK_CONTROL;
        tok_decode(m.tok, ids.data, ids.n, TOK_UNPARSE_SPECIAL, &back);
        CHECK(n == CASES[i].n_control, "case %zu: %d control tokens", i, n);
        CHECK(strstr(back.data, "<|end|>") != NULL, "the text stays: %s", back.data);
        tok_ids_free(&ids);
        buf_free(&back);
    }
    model_close(&m);
}

/* ---- reasoning ---- */

/* The text pushed in parts of size bytes, as "thought|answer".  What follows '^' in the prompt is the begin
 * of the answer. */
static void split(const char *prompt, const char *text, size_t size, Buf *out) {
    Think t = {0};
    Buf thought = {0}, answer = {0}, both = {0};
    const char *prefill = strchr(prompt, '^');
    size_t n = strlen(text), n_prompt = prefill ? (size_t)(prefill - prompt) : strlen(prompt);
    buf_printf(&both, "%.*s%s", (int)n_prompt, prompt, prefill ? prefill + 1 : "");
    think_begin(&t, both.data ? both.data : "", both.n, both.n - n_prompt);
    buf_free(&both);
    for (size_t i = 0; i < n; i += size)
        think_push(&t, text + i, n - i < size ? n - i : size, &thought, &answer);
    think_end(&t, &thought, &answer);
    buf_printf(out, "%s|%s", thought.n ? thought.data : "", answer.n ? answer.data : "");
    buf_free(&thought);
    buf_free(&answer);
}

TEST(thoughts_have_ends) {
    static const char *const CASES[][2] = {
        {"<think>\nWell, <b>.\n</think>\n\n", "Well, <b>."},
        {"Well.</think>", "Well."},
        {"[THINK]a[/THINK]", "a"},
        {"<think></think>", ""},
        {" \n ", ""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Buf thought = {0};
        buf_printf(&thought, "%s", CASES[i][0]);
        think_strip(&thought);
        CHECK(strcmp(thought.n ? thought.data : "", CASES[i][1]) == 0, "case %zu: (%s)", i, thought.data);
        buf_free(&thought);
    }
    CHECK(strcmp(think_closing("<a><think>\n", 11), "\n</think>\n\n") == 0);
    CHECK(strcmp(think_closing("[THINK]", 7), "[/THINK]") == 0 && !think_closing("<think></think>", 15));
    CHECK(think_is_tag("[/THINK]", 8) && !think_is_tag("[/THINK", 7));
}

TEST(thoughts_are_told_from_answers) {
    static const char *const CASES[][3] = {
        {"", " An answer. \n", "|An answer."},
        {"", "<think>\nWell, <think>.\n</think>\n\nYes. ", "<think>\nWell, <think>.\n</think>\n\n|Yes."},
        {"", "\n<think></think>Yes", "<think></think>|Yes"},
        {"<|assistant|><think>\n", "Well.</think>Yes", "Well.</think>|Yes"},
        {"<think></think>", "Yes <think>no</think>", "|Yes <think>no</think>"},
        {"", "a </think> b", "|a </think> b"},
        {"", "<thin", "|<thin"},
        {"", "<thing> a", "|<thing> a"},
        {"", "<think>never </thin", "<think>never </thin|"},
        {"", "[THINK]x[/THINK]y</think>", "[THINK]x[/THINK]|y</think>"},
        {"", "<seed:think>x</think></seed:think>y", "<seed:think>x</think></seed:think>|y"},
        {"", " \n ", "|"},
        {"<|assistant|>^Once upon", " a time. ", "| a time."},
        {"<|assistant|>^<think>Well", ", yes.</think>\nYes", ", yes.</think>\n|Yes"},
        {"<|assistant|><think>^Well", ", yes.</think>\nYes", ", yes.</think>\n|Yes"},
        {"<|assistant|>^<think>Well</think>", " <think>Yes", " |<think>Yes"},
        {"<think></think>^Yes ", " no", "| no"},
        {"^ ", "<think>", "|<think>"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (size_t size = 1; size < 12; size++) {
            Buf got = {0};
            split(CASES[i][0], CASES[i][1], size, &got);
            CHECK(strcmp(got.data, CASES[i][2]) == 0, "case %zu in pieces of %zu: (%s)", i, size, got.data);
            buf_free(&got);
        }
}
