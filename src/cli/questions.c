/* questions: see questions.h. */
#include "questions.h"
#include "progress.h"
#include "prompt.h"
#include "runner.h"
#include "setup.h"
#include "show.h"
#include "out.h"
#include "stop.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/stat.h"
#include "../run/score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 256 }; // of logits in memory at once

typedef struct Exam {
    Runner run;
    Questions questions;
    double **scores; // [questions.n][choices]
    int *chosen;     // [questions.n]
    double *right;   // [questions.n] 1 or 0
    int n_choices;   // of all questions
    Progress progress;
    double seconds;
} Exam;

static QuestionForm form_of(const Options *o) {
    static const char *const names[] = {"hellaswag", "winogrande", "multiple-choice"};
    int i = 0;
    while (strcmp(names[i], o->questions) != 0) i++;
    return (QuestionForm)i;
}

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; the questions are given with -f",
                       o->rest[0]);
    if (!o->file == !o->binary_file)
        return err_set(e, ERR_USAGE, "--%s: give the file of questions with -f FILE", o->questions);
    if (o->base || o->save || o->stride || o->profile || o->n_verify)
        return err_set(e, ERR_USAGE,
                       "--%s scores answers; drop the options of perplexity, --profile and --verify",
                       o->questions);
    return true;
}

static bool read_questions(Exam *x, Err *e) {
    const Options *o = x->run.options;
    const char *path = o->file ? o->file : o->binary_file;
    bool is_text = form_of(o) != QUESTIONS_MULTIPLE_CHOICE;
    Buf bytes = {0};
    bool ok = model_need_tok(&x->run.model, e) &&
              (is_text ? prompt_read_file(path, "the questions", &bytes, e)
                       : prompt_read_bytes(path, "the questions", &bytes, e)) &&
              questions_read(form_of(o), bytes.data ? bytes.data : "", bytes.n, path, o->n_questions,
                             x->run.model.tok, &x->questions, e);
    buf_free(&bytes);
    return ok;
}

static bool start(Exam *x, Err *e) {
    Runner *run = &x->run;
    const Options *o = run->options;
    if (!runner_choose(run, e) || !runner_open(run, o->model, e) || !read_questions(x, e)) return false;
    int longest = questions_longest(&x->questions);
    run->config.n_seq = 1;
    run->config.chunk = o->n_batch;
    run->config.R_max = o->n_batch && o->n_batch < ROWS ? o->n_batch : ROWS;
    run->config.n_ctx = longest;
    if (o->n_ctx > 0 && o->n_ctx < longest)
        return err_set(e, ERR_USAGE, "-c %d: the longest text has %d tokens; use -c %d or more, or drop it",
                       o->n_ctx, longest, longest);
    if (!runner_start(run, e)) return false;
    runner_warn_untrained(run, "a text", longest, "use ");
    runner_report_model(run);
    return true;
}

static int best(const double *scores, int n) {
    int at = 0;
    for (int i = 1; i < n; i++)
        if (scores[i] > scores[at]) at = i;
    return at;
}

static bool answer(Exam *x, int i, Err *e) {
    const Question *q = &x->questions.items[i];
    const Options *o = x->run.options;
    x->scores[i] = mem_new((size_t)q->n, sizeof **x->scores);
    if (!question_scores(x->run.engine, q, x->scores[i], e)) return false;
    x->chosen[i] = best(x->scores[i], q->n);
    // of two equal scores of winogrande the second word counts as chosen, as in llama-perplexity
    if (form_of(o) == QUESTIONS_WINOGRANDE && x->scores[i][0] == x->scores[i][1]) x->chosen[i] = 1;
    x->right[i] = q->choices[x->chosen[i]].is_right;
    x->n_choices += q->n;
    if (o->notices.verbose) {
        progress_end(&x->progress);
        notice(&o->notices, "question %d of %d: %.4f %%", i + 1, x->questions.n,
               100 * stat_mean(x->right, i + 1));
    }
    progress_show(&x->progress, (i + 1.0) / x->questions.n);
    return true;
}

static bool answer_all(Exam *x, Err *e) {
    size_t n = (size_t)x->questions.n;
    double begun = clock_now();
    x->scores = mem_new(n, sizeof *x->scores);
    x->chosen = mem_new(n, sizeof *x->chosen);
    x->right = mem_new(n, sizeof *x->right);
    progress_begin(&x->progress, &x->run.options->notices, x->run.options->questions);
    bool ok = true;
    for (int i = 0; ok && i < x->questions.n && !stop_wanted(); i++) ok = answer(x, i, e);
    progress_end(&x->progress);
    x->seconds = clock_now() - begun;
    return stop_wanted() ? stop_err(e) : ok;
}

/* ---- the report ---- */

typedef struct Accuracy {
    double value, error, low, high, chance; // shares; low, high: Wilson's interval of 95 %
} Accuracy;

static Accuracy accuracy_of(const Exam *x) {
    const double z = 1.95996398454;
    int n = x->questions.n;
    double p = stat_mean(x->right, n), zz = z * z / n, half = zz * sqrt(n * (4 * p * (1 - p) + zz)) / (2 * z);
    return (Accuracy){.value = p,
                      .error = stat_error(x->right, n),
                      .low = (p + zz / 2 - half) / (1 + zz),
                      .high = (p + zz / 2 + half) / (1 + zz),
                      .chance = (double)n / x->n_choices};
}

static bool report_text(const Exam *x, Err *e) {
    Accuracy a = accuracy_of(x);
    Buf text = {0};
    buf_printf(
        &text,
        "accuracy %% = %.4f +/- %.4f\n95 %% interval = %.4f to %.4f\nby chance %% = %.4f\nquestions = %d\n",
        100 * a.value, 100 * a.error, 100 * a.low, 100 * a.high, 100 * a.chance, x->questions.n);
    bool ok = out_write(text.data, text.n, e);
    buf_free(&text);
    return ok;
}

static json_t *answers_json(const Exam *x) {
    json_t *answers = json_array();
    for (int i = 0; i < x->questions.n; i++) {
        json_t *scores = json_array();
        for (int k = 0; k < x->questions.items[i].n; k++)
            json_array_append_new(scores, show_number(x->scores[i][k]));
        json_array_append_new(answers, json_pack("{s:o,s:i,s:b}", "scores", scores, "chosen", x->chosen[i],
                                                 "right", x->right[i] > 0));
    }
    return answers;
}

static bool report_json(const Exam *x, Err *e) {
    Accuracy a = accuracy_of(x);
    const EngineConfig *c = &x->run.config;
    const char *label = gguf_label(x->run.model.gguf);
    json_t *accuracy = json_pack("{s:o,s:o}", "value", show_number(a.value), "error", show_number(a.error));
    json_t *root = json_pack("{s:o,s:s,s:i,s:i,s:o,s:[o,o],s:o,s:o,s:s,s:s,s:s,s:s,s:s,s:i,s:o,s:f}", "model",
                             show_json(label, strlen(label)), "form", x->run.options->questions, "questions",
                             x->questions.n, "file", x->questions.n_file, "accuracy", accuracy, "interval",
                             show_number(a.low), show_number(a.high), "chance", show_number(a.chance),
                             "answers", answers_json(x), "executor", engine_executor(x->run.engine), "isa",
                             c->isa, "act", c->act_f32 ? "f32" : "q8", "weights",
                             c->weights_fp8 ? "fp8" : "file", "kv", kv_type_name(c->kv_type), "threads",
                             c->n_threads, "memory", runner_memory(&x->run), "seconds", x->seconds);
    return show_write(root, e);
}

bool questions_run(const Options *o, Err *e) {
    Exam x = {.run = {.options = o}};
    stop_install();
    bool ok = check(o, e) && start(&x, e) && answer_all(&x, e) &&
              (options_json(o) ? report_json(&x, e) : report_text(&x, e));
    for (int i = 0; x.scores && i < x.questions.n; i++) free(x.scores[i]);
    free(x.scores);
    free(x.chosen);
    free(x.right);
    runner_close(&x.run);
    questions_free(&x.questions);
    return ok;
}
