/* chat_prompt: the prompt for a conversation, whatever its messages and its template are.
 *
 * Templates fail on, or silently leave out, what their makers did not think of: a system prompt, a content
 * in parts, two calls at once.  chat_prompt normalises the messages and renders them.  Where that fails or
 * leaves something out, it finds out in trials, small conversations rendered by the same template, in
 * which form the template takes each kind of message (normalise.h), and renders the messages in these
 * forms.  What a template has no place for in any form is named.
 *
 * The one trick: each part of the messages has an origin of its own, which follows its characters through
 * the template, so that a part that is left out is seen, and the place of the last message, too. */
#ifndef ZGEN_TEXT_CHAT_PROMPT_H
#define ZGEN_TEXT_CHAT_PROMPT_H

#include "chat.h"
#include "../base/buf.h"

/* Renders the conversation of input->variables into *out, as chat_render does, and appends to *notes a
 * line ("...\n") for each part of it that the template leaves out or that is written in a form of
 * necessity.
 *
 * With input->no_thought, for which the variables enable_thinking and thinking are false, a thought that
 * the template still begins at the end of the prompt is ended there; a note says where these variables
 * change nothing.
 *
 * With the variable continue_final_message the prompt ends with the text of the last message, which must
 * be the assistant's.  false: as chat_render and normalise_messages, and ERR_RUN if that message has no
 * text in the prompt. */
bool chat_prompt(const char *source, size_t n, const ChatInput *input, ChatText *out, Buf *notes, Err *e);

/* Whether the variables ask for the continuation of the last message. */
bool chat_continues(const json_t *variables);

#endif
