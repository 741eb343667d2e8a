/* question: a choice between texts, which a model answers by the one that it finds likeliest.
 *
 * HellaSwag, Winogrande, ARC, MMLU and TruthfulQA are files of such questions, in the three forms that
 * llama-perplexity reads:
 *
 *     hellaswag        6 lines each: the beginning, the number of the right end (0 to 3), four ends
 *     winogrande       lines of CSV: number, sentence with a gap _, two words, the right one (1 or 2)
 *     multiple-choice  binary, little endian: u32 n, u32 position[n]; per question a string, and twice u32
 *                      n_answers (100 at most), that many strings and i32 labels, 1 for the right ones; the
 *                      second list is not used.  A string is u32 n_bytes and the bytes
 *
 * The texts of a question are tokenized whole, with BOS.  The score of one is the mean of ln P(token) in nats
 * over the tokens that differ: behind those that all texts have in common; of winogrande, where more than 3
 * tokens of both texts differ, behind the word in the gap, and without the last token if others are left.
 *
 * Refused are counts and lengths beyond the file's, questions without a right answer's number, and texts of
 * which no token is scored.  The one trick: of a file with more questions than wanted, those are chosen which
 * llama-perplexity would choose, by the same generator with the same seed. */
#ifndef ZGEN_TEXT_QUESTION_H
#define ZGEN_TEXT_QUESTION_H

#include "tok.h"

typedef struct Choice {
    TokIds ids;
    int begin, end; // the tokens that are scored: 1 <= begin < end <= ids.n
    bool is_right;
} Choice;

typedef struct Question {
    Choice *choices; // [n]
    int n;           // 2 or more, but 1 or more of multiple-choice
} Question;

typedef struct Questions {
    Question *items; // [n]
    int n;
    int n_file; // in the file
} Questions;

typedef enum QuestionForm {
    QUESTIONS_HELLASWAG,
    QUESTIONS_WINOGRANDE,
    QUESTIONS_MULTIPLE_CHOICE
} QuestionForm;

/* Reads a file of n bytes and chooses n_wanted questions; 0: all, of hellaswag 400.  path is for messages.
 * false: ERR_RUN.  questions_free releases *out in both cases. */
bool questions_read(QuestionForm form, const char *bytes, size_t n, const char *path, int n_wanted,
                    const Tok *tok, Questions *out, Err *e);
void questions_free(Questions *q);

/* The tokens of the longest text. */
int questions_longest(const Questions *q);

#endif
