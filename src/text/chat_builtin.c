/* chat_builtin: the built-in templates, by the names of their formats, for files without a template.
 *
 * Each is the plain form of its format: messages of system, user and assistant and the prompt for an answer,
 * without tools.  A format without system messages has the system prompt in front of the first user
 * message. */
#include "chat.h"

#include <string.h>

/* Refuses messages of other roles. */
#define ONLY(messages, roles)                                                                                \
    "{% for m in " messages " if m.role not in " roles                                                       \
    " %}"                                                                                                    \
    "{{ raise_exception('this format has no message of role ' + m.role + ' here') }}{% endfor %}"

/* Formats in which all roles are written the same way. */
#define EACH_TURN(turn, generation)                                                                          \
    ONLY("messages", "['system', 'user', 'assistant']")                                                      \
    "{% for m in messages %}" turn "{% endfor %}{% if add_generation_prompt %}" generation "{% endif %}"

/* Formats that treat the system message apart: `system` is its text, `turns` are the other messages. */
#define WITH_SYSTEM(body)                                                                                    \
    "{% set turns = messages %}{% set system = '' %}"                                                        \
    "{% if messages and messages[0].role == 'system' %}"                                                     \
    "{% set system = messages[0].content %}{% set turns = messages[1:] %}{% endif %}" ONLY(                  \
        "turns", "['user', 'assistant']") body

#define MISTRAL(system, user_begin, user_end, answer_begin)                                                  \
    WITH_SYSTEM("{{ bos_token }}" system                                                                     \
                "{% for m in turns %}"                                                                       \
                "{% if m.role == 'user' %}" user_begin "{{ m.content }}" user_end "{% else %}" answer_begin  \
                "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}")

#define SYSTEM_FIRST "{% if loop.first and system %}{{ system }}{{ '\\n\\n' }}{% endif %}"

static const struct {
    const char *name, *source;
} TEMPLATES[] = {
    {"chatml", EACH_TURN("{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}",
                         "{{ '<|im_start|>assistant\\n' }}")},
    {"command-r",
     "{{ bos_token }}" EACH_TURN("<|START_OF_TURN_TOKEN|>"
                                 "{{ '<|USER_TOKEN|>' if m.role == 'user' else '<|CHATBOT_TOKEN|>' if "
                                 "m.role == 'assistant' else '<|SYSTEM_TOKEN|>' }}"
                                 "{{ m.content | trim }}<|END_OF_TURN_TOKEN|>",
                                 "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>")},
    {"deepseek3", "{{ bos_token }}" EACH_TURN(
                      "{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
                      "{% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}{{ eos_token }}"
                      "{% else %}{{ m.content }}{% endif %}",
                      "<｜Assistant｜>")},
    {"falcon3", EACH_TURN("{{ '<|' + m.role + '|>\\n' + m.content + '\\n' }}", "{{ '<|assistant|>\\n' }}")},
    {"gemma",
     WITH_SYSTEM(
         "{{ bos_token }}{% for m in turns %}"
         "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}" SYSTEM_FIRST
         "{{ m.content | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}")},
    {"glm4", "[gMASK]<sop>" EACH_TURN("{{ '<|' + m.role + '|>\\n' + m.content }}", "<|assistant|>")},
    {"gpt-oss",
     EACH_TURN("<|start|>{{ m.role }}"
               "{{ '<|channel|>final' if m.role == 'assistant' }}<|message|>{{ m.content }}<|end|>",
               "<|start|>assistant")},
    {"granite",
     EACH_TURN("{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\\n' }}",
               "<|start_of_role|>assistant<|end_of_role|>")},
    {"llama2",
     WITH_SYSTEM("{% for m in turns %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
                 "{% if loop.first and system %}{{ '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' }}{% endif %}"
                 "{{ m.content | trim }} [/INST]"
                 "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}")},
    {"llama3", "{{ bos_token }}" EACH_TURN("{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
                                           "{{ m.content | trim }}<|eot_id|>",
                                           "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}")},
    {"mistral-v1", MISTRAL("", " [INST] " SYSTEM_FIRST, " [/INST]", " ")},
    {"mistral-v3", MISTRAL("", "[INST] " SYSTEM_FIRST, "[/INST]", " ")},
    {"mistral-v7", MISTRAL("{% if system %}[SYSTEM_PROMPT] {{ system }}[/SYSTEM_PROMPT]{% endif %}",
                           "[INST] ", "[/INST]", " ")},
    {"mistral-v7-tekken", MISTRAL("{% if system %}[SYSTEM_PROMPT]{{ system }}[/SYSTEM_PROMPT]{% endif %}",
                                  "[INST]", "[/INST]", "")},
    {"openchat",
     "{{ bos_token }}" EACH_TURN("{% if m.role == 'system' %}{{ m.content }}<|end_of_turn|>{% else %}"
                                 "GPT4 Correct {{ m.role | title }}: {{ m.content }}<|end_of_turn|>"
                                 "{% endif %}",
                                 "GPT4 Correct Assistant:")},
    {"phi3",
     EACH_TURN("{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}", "{{ '<|assistant|>\\n' }}")},
    {"phi4", EACH_TURN("<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>",
                       "<|im_start|>assistant<|im_sep|>")},
    {"vicuna",
     WITH_SYSTEM("{{ bos_token }}{% if system %}{{ system }}{{ '\\n\\n' }}{% endif %}{% for m in turns %}"
                 "{% if m.role == 'user' %}USER: {{ m.content }}{{ '\\n' }}"
                 "{% else %}ASSISTANT: {{ m.content }}{{ eos_token }}{{ '\\n' }}{% endif %}{% endfor %}"
                 "{% if add_generation_prompt %}ASSISTANT:{% endif %}")},
    {"zephyr", EACH_TURN("{{ '<|' + m.role + '|>\\n' + m.content }}{{ eos_token }}{{ '\\n' }}",
                         "{{ '<|assistant|>\\n' }}")},
};

enum { N_TEMPLATES = sizeof TEMPLATES / sizeof *TEMPLATES };

const char *chat_builtin_template(const char *name) {
    for (size_t i = 0; i < N_TEMPLATES; i++)
        if (strcmp(TEMPLATES[i].name, name) == 0) return TEMPLATES[i].source;
    return NULL;
}

const char *chat_builtin_name(size_t i) {
    return i < N_TEMPLATES ? TEMPLATES[i].name : NULL;
}
