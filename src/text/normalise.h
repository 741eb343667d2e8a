/* normalise: messages as clients send them, made into what chat templates understand.
 *
 * Clients follow OpenAI's API, templates the habits of their makers.  normalise_messages makes one form of
 * all that clients send: the form of most templates.  normalise_form changes that form to what one template
 * needs. Both work on JSON and know no template; chat_prompt.h finds out what a template needs.  Nothing
 * that can be written is dropped here; images and sound are refused. */
#ifndef ZGEN_TEXT_NORMALISE_H
#define ZGEN_TEXT_NORMALISE_H

#include <jansson.h>
#include "../base/err.h"

enum {                          // bits of a form; 0 is that of most templates
    FORM_PARTS = 1 << 0,        // a content is a list of one part of text
    FORM_SYSTEM_FIRST = 1 << 1, // a system message begins the conversation; the text of later ones begins the
                                // next message of the user
    FORM_SYSTEM_NONE = 1 << 2,  // the text of all system messages begins the next message of the user
    FORM_TURNS_JOINED = 1 << 3, // neighbours of one role are one message
    FORM_EMPTY_DROPPED = 1 << 4,  // no assistant's message is empty
    FORM_CONTENT_NULL = 1 << 5,   // an empty content beside calls is null
    FORM_ARGUMENTS_TEXT = 1 << 6, // the arguments of a call are JSON text
    FORM_CALLS_SINGLE = 1 << 7,   // a message has one call, its results follow
    FORM_CALLS_TEXT = 1 << 8,     // calls are JSON text in the content
    FORM_RESULTS_TEXT = 1 << 9,   // results of tools are messages of the user
    FORM_IDS_SHORT = 1 << 10,     // ids of calls are nine letters and digits
    FORM_CALLS_APART = 1 << 11,   // calls are in a message without a content, behind one with it
    FORM_REASONING_ALL = 1 << 12, // reasoning has all names that templates use
    FORM_REASONING_PART = 1 << 13 // a content beside reasoning is a list of two parts, thinking and text
};

/* Returns new messages, the caller's.  Contents are strings, the text of all parts in order, "" if there is
 * none; developers are the system, functions are tools; calls are {id, type, function: {name, arguments}};
 * reasoning is "reasoning_content".  Other keys stay.  NULL: ERR_RUN with the number of the message that is
 * not one, or that has something else than text. */
json_t *normalise_messages(const json_t *messages, Err *e);

/* Returns normalised messages in a form, the caller's.  Arguments that are the text of an object become that
 * object, except where the form wants text. */
json_t *normalise_form(const json_t *normalised, unsigned form);

/* The text of the content of a message in any form, and the string of a key; "" if there is none. */
const char *message_text(const json_t *message);
const char *message_string(const json_t *message, const char *key);

#endif
