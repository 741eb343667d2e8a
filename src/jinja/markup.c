/* markup: filters that write and read HTML: escape, xmlattr, striptags, urlize.
 *
 * As Jinja and MarkupSafe have them.  Entities that striptags reads are numbers and the names of HTML 4,
 * with a semicolon behind them. */
#include "interp.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>
#include <string.h>

/* ---- Escaping ---- */

static void add_html(Jinja *j, Text *t, Char c) {
    static const struct {
        char c;
        const char *entity;
    } ENTITIES[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    for (size_t i = 0; i < sizeof ENTITIES / sizeof *ENTITIES; i++)
        if (char_code(c) == (unsigned char)ENTITIES[i].c) {
            for (const char *p = ENTITIES[i].entity; *p; p++)
                js_add_char(j, t, (unsigned char)*p | char_mark(c));
            return;
        }
    js_add_char(j, t, c);
}

static void add_escaped(Jinja *j, Text *t, Str s) {
    for (size_t i = 0; i < s.n; i++) add_html(j, t, s.c[i]);
}

Value jinja_escape(Jinja *j, const Value *a) {
    Text t = {0};
    add_escaped(j, &t, jv_string(j, a[0]));
    return jv_str(js_text(&t));
}

Value jinja_xmlattr(Jinja *j, const Value *a) {
    bool autospace = a[1].kind == V_ABSENT || jv_truth(j, a[1]);
    Text t = {0};
    if (a[0].kind != V_DICT) jinja_fail(j, ERR_RUN, "xmlattr needs a dict, not %s", jv_kind_name(a[0]));
    for (size_t i = 0; i < a[0].dict->n; i++) {
        const Pair *pair = &a[0].dict->pairs[i];
        if (pair->value.kind == V_NONE || pair->value.kind == V_UNDEFINED) continue;
        Str key = jv_string(j, pair->key);
        for (size_t k = 0; k < key.n; k++)
            if (char_is_space(key.c[k]) || strchr("/>=", (int)char_code(key.c[k]) & 0x7F))
                jinja_fail(j, ERR_RUN, "'%s' cannot be the name of an attribute", jinja_quote(j, key));
        if (t.n || autospace) js_add_char(j, &t, ' ');
        add_escaped(j, &t, key);
        js_add_ascii(j, &t, "=\"");
        add_escaped(j, &t, jv_string(j, pair->value));
        js_add_char(j, &t, '"');
    }
    return jv_str(js_text(&t));
}

/* ---- Tags and entities ---- */

// Names of entities, by runs of code points.
static const struct {
    uint32_t first;
    const char *names;
} ENTITIES[] = {
    // clang-format off
    {0x22, "quot"}, {0x26, "amp"}, {0x3C, "lt"}, {0x3E, "gt"},
    {0xA0, "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr "
     "deg plusmn sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 "
     "frac34 iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc "
     "Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times "
     "Oslash Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml "
     "aring aelig ccedil egrave eacute ecirc euml igrave iacute icirc iuml eth ntilde "
     "ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn "
     "yuml"},
    {0x152, "OElig oelig"}, {0x160, "Scaron scaron"}, {0x178, "Yuml"}, {0x192, "fnof"}, {0x2C6, "circ"},
    {0x2DC, "tilde"},
    {0x391, "Alpha Beta Gamma Delta Epsilon Zeta Eta Theta Iota Kappa Lambda Mu Nu Xi Omicron Pi "
     "Rho"},
    {0x3A3, "Sigma Tau Upsilon Phi Chi Psi Omega"},
    {0x3B1, "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi "
     "rho sigmaf sigma tau upsilon phi chi psi omega"},
    {0x3D1, "thetasym upsih"}, {0x3D6, "piv"}, {0x2002, "ensp emsp"}, {0x2009, "thinsp"},
    {0x200C, "zwnj zwj lrm rlm"}, {0x2013, "ndash mdash"}, {0x2018, "lsquo rsquo sbquo"},
    {0x201C, "ldquo rdquo bdquo"}, {0x2020, "dagger Dagger bull"}, {0x2026, "hellip"},
    {0x2030, "permil"}, {0x2032, "prime Prime"}, {0x2039, "lsaquo rsaquo"}, {0x203E, "oline"},
    {0x2044, "frasl"}, {0x20AC, "euro"}, {0x2111, "image"}, {0x2118, "weierp"}, {0x211C, "real"},
    {0x2122, "trade"}, {0x2135, "alefsym"}, {0x2190, "larr uarr rarr darr harr"}, {0x21B5, "crarr"},
    {0x21D0, "lArr uArr rArr dArr hArr"}, {0x2200, "forall"}, {0x2202, "part exist"}, {0x2205, "empty"},
    {0x2207, "nabla isin notin"}, {0x220B, "ni"}, {0x220F, "prod"}, {0x2211, "sum minus"},
    {0x2217, "lowast"}, {0x221A, "radic"}, {0x221D, "prop infin"}, {0x2220, "ang"},
    {0x2227, "and or cap cup int"}, {0x2234, "there4"}, {0x223C, "sim"}, {0x2245, "cong"},
    {0x2248, "asymp"}, {0x2260, "ne equiv"}, {0x2264, "le ge"}, {0x2282, "sub sup nsub"},
    {0x2286, "sube supe"}, {0x2295, "oplus"}, {0x2297, "otimes"}, {0x22A5, "perp"}, {0x22C5, "sdot"},
    {0x2308, "lceil rceil lfloor rfloor"}, {0x2329, "lang rang"}, {0x25CA, "loz"}, {0x2660, "spades"},
    {0x2663, "clubs"}, {0x2665, "hearts diams"},
    // clang-format on
};

/* The code point of a name; 0: unknown. */
static uint32_t named_entity(Str name) {
    for (size_t i = 0; i < sizeof ENTITIES / sizeof *ENTITIES; i++) {
        uint32_t code = ENTITIES[i].first;
        for (const char *p = ENTITIES[i].names; *p; code++) {
            size_t n = strcspn(p, " "), k = 0;
            while (k < n && k < name.n && char_code(name.c[k]) == (unsigned char)p[k]) k++;
            if (k == n && n == name.n) return code;
            p += n + (p[n] == ' ');
        }
    }
    return 0;
}

/* The code point of a number behind "&#": 0 where there are no digits, U+FFFD of what is no character. */
static uint32_t numbered_entity(Str digits) {
    bool hex = digits.n && (char_code(digits.c[0]) | 32) == 'x';
    uint32_t code = 0;
    for (size_t i = hex; i < digits.n; i++) {
        uint32_t c = char_code(digits.c[i]), letter = (c | 32) - 'a';
        bool is_digit = c - '0' < 10;
        if (!is_digit && !(hex && letter < 6)) return 0;
        code = code * (hex ? 16 : 10) + (is_digit ? c - '0' : letter + 10);
        if (code > 0x10FFFF) code = 0x110000;
    }
    if (digits.n == (size_t)hex) return 0;
    return code == 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0xFFFD : code;
}

/* s with characters for their entities. */
static Str unescaped(Jinja *j, Str s) {
    enum { LONGEST = 32 };
    Text t = {0};
    for (size_t i = 0; i < s.n; i++) {
        size_t end = i + 1;
        uint32_t code = 0;
        if (char_code(s.c[i]) == '&') {
            while (end < s.n && end - i <= LONGEST && char_code(s.c[end]) != ';') end++;
            if (end < s.n && char_code(s.c[end]) == ';') {
                Str name = js_part(s, i + 1, end);
                bool is_number = name.n && char_code(name.c[0]) == '#';
                code = is_number ? numbered_entity(js_part(name, 1, name.n)) : named_entity(name);
                jinja_spend(j, 1);
            }
        }
        js_add_char(j, &t, code ? code | char_mark(s.c[i]) : s.c[i]);
        if (code) i = end;
    }
    return js_text(&t);
}

/* s without the parts between open and close, both included. */
static Str without(Jinja *j, Str s, const char *open, const char *close) {
    Str from = js_ascii(j, open), to = js_ascii(j, close);
    Text t = {0};
    for (;;) {
        size_t begin = js_find(j, s, from, 0), end = begin == JS_NOWHERE ? begin : js_find(j, s, to, begin);
        if (end == JS_NOWHERE) break;
        js_add(j, &t, js_part(s, 0, begin));
        s = js_part(s, end + to.n, s.n);
    }
    js_add(j, &t, s);
    return js_text(&t);
}

Value jinja_striptags(Jinja *j, const Value *a) {
    Str s = without(j, without(j, jv_string(j, a[0]), "<!--", "-->"), "<", ">");
    Text t = {0};
    for (size_t i = 0, begin; i < s.n;) {
        while (i < s.n && char_is_space(s.c[i])) i++;
        for (begin = i; i < s.n && !char_is_space(s.c[i]);) i++;
        if (t.n && i > begin) js_add_char(j, &t, ' ');
        js_add(j, &t, js_part(s, begin, i));
    }
    return jv_str(unescaped(j, js_text(&t)));
}

/* ---- Links ---- */

enum { HTTP, EMAIL, SCHEME, N_PATTERNS };
static const char *const PATTERNS[] = {
    [HTTP] =
        "(?i)^((https?://|www\\.)(([\\w%-]+\\.)+)?([a-z]{2,63}|xn--[\\w%]{2,59})"
        "|([\\w%-]{2,63}\\.)+(com|net|int|edu|gov|org|info|mil)"
        "|(https?://)((\\d{1,3}(\\.\\d{1,3}){3})|(\\[([\\da-f]{0,4}:){2}([\\da-f]{0,4}:?){1,6}\\])))"
        "(?::\\d{1,5})?(?:[/?#]\\S*)?$",
    [EMAIL] = "^\\S+@\\w[\\w.-]*\\.\\w+$",
    [SCHEME] = "^[\\w.+-]{2,}:/{0,2}$",
};

/* A compiled pattern, made at its first use. */
static pcre2_code *pattern(int which) {
    static pcre2_code *codes[N_PATTERNS];
    int error;
    size_t at;
    if (!codes[which])
        codes[which] = pcre2_compile((PCRE2_SPTR)PATTERNS[which], PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    assert(codes[which]);
    return codes[which];
}

static bool matches(Jinja *j, int which, Str s) {
    char *text = jinja_alloc(j, 4 * s.n, 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += js_put_utf8(s.c[i], text + n);
    jinja_spend(j, 16 + n / 8);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(context, 1000000);
    int rc = pcre2_match(pattern(which), (PCRE2_SPTR)text, n, 0, 0, data, context);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    return rc >= 0;
}

typedef struct Links { // the arguments of urlize
    Jinja *j;
    int64_t limit; // characters of a link that are shown, -1: all
    Str attributes;
    const Seq *schemes;
} Links;

static bool has(Links *l, Str s, const char *what) {
    return js_find(l->j, s, js_ascii(l->j, what), 0) != JS_NOWHERE;
}

static bool starts(Links *l, Str s, const char *what) {
    return js_starts(s, js_ascii(l->j, what));
}

/* <a href="PREFIX LINK" ...>SHOWN</a> */
static void add_link(Links *l, Text *t, const char *prefix, Str link, Str shown, Str attributes) {
    Jinja *j = l->j;
    js_add_ascii(j, t, "<a href=\"");
    js_add_ascii(j, t, prefix);
    js_add(j, t, link);
    js_add_char(j, t, '"');
    js_add(j, t, attributes);
    js_add_char(j, t, '>');
    js_add(j, t, shown);
    js_add_ascii(j, t, "</a>");
}

static void add_word(Links *l, Text *t, Str s) {
    Jinja *j = l->j;
    if (matches(j, HTTP, s)) {
        bool has_scheme = starts(l, s, "https://") || starts(l, s, "http://"),
             cuts = l->limit >= 0 && (int64_t)s.n > l->limit;
        Text shown = {0};
        js_add(j, &shown, cuts ? js_part(s, 0, (size_t)l->limit) : s);
        if (cuts) js_add_ascii(j, &shown, "...");
        add_link(l, t, has_scheme ? "" : "https://", s, js_text(&shown), l->attributes);
        return;
    }
    Str address = js_part(s, 7, s.n);
    if (starts(l, s, "mailto:") && matches(j, EMAIL, address)) {
        add_link(l, t, "", s, address, (Str){0});
        return;
    }
    if (has(l, s, "@") && !starts(l, s, "www.") && !starts(l, s, "@") && !has(l, s, ":") &&
        matches(j, EMAIL, s)) {
        add_link(l, t, "mailto:", s, s, (Str){0});
        return;
    }
    for (size_t i = 0; i < l->schemes->n; i++) {
        Str scheme = jv_need_str(j, l->schemes->items[i], "a scheme");
        jinja_spend(j, 1);
        if (s.n == scheme.n || !js_starts(s, scheme)) continue;
        add_link(l, t, "", s, s, l->attributes);
        return;
    }
    js_add(j, t, s);
}

/* How many characters one of these texts takes at the begin of s, or at its end; 0: none is there. */
static size_t one_of(Links *l, Str s, const char *const *texts, bool at_end) {
    for (; *texts; texts++) {
        Str text = js_ascii(l->j, *texts);
        if (at_end ? js_ends(s, text) : js_starts(s, text)) return text.n;
    }
    return 0;
}

static size_t count(Links *l, Str s, Str what) {
    size_t n = 0;
    for (size_t at = 0; (at = js_find(l->j, s, what, at)) != JS_NOWHERE; at += what.n) n++;
    return n;
}

/* The end of the link of a word, whose tail begins at `end`: closing brackets that balance those in the
 * link belong to it. */
static size_t balanced(Links *l, Str word, size_t begin, size_t end) {
    static const char *const PAIRS[][2] = {{"(", ")"}, {"&lt;", "&gt;"}};
    for (int i = 0; i < 2; i++) {
        Str open = js_ascii(l->j, PAIRS[i][0]), close = js_ascii(l->j, PAIRS[i][1]);
        size_t n = count(l, js_part(word, begin, end), open);
        if (n <= count(l, js_part(word, begin, end), close)) continue;
        for (size_t at; n > 0 && (at = js_find(l->j, word, close, end)) != JS_NOWHERE; n--)
            end = at + close.n;
    }
    return end;
}

static void add_linked(Links *l, Text *t, Str word) {
    static const char *const HEAD[] = {"(", "&lt;", NULL}, *const TAIL[] = {")", ".", ",", "&gt;", NULL};
    size_t begin = 0, end = word.n;
    for (size_t n; (n = one_of(l, js_part(word, begin, end), HEAD, false)); begin += n) continue;
    for (size_t n; (n = one_of(l, js_part(word, begin, end), TAIL, true)); end -= n) continue;
    end = balanced(l, word, begin, end);
    js_add(l->j, t, js_part(word, 0, begin));
    add_word(l, t, js_part(word, begin, end));
    js_add(l->j, t, js_part(word, end, word.n));
}

/* The values of rel: those of the argument, nofollow and noopener, in order, each once. */
static Str relations(Jinja *j, Value rel, bool nofollow) {
    Text words = {0}, t = {0};
    if (jv_is_given(rel)) js_add(j, &words, jv_need_str(j, rel, "rel"));
    js_add_ascii(j, &words, nofollow ? " nofollow noopener" : " noopener");
    Str s = js_text(&words), last = {0};
    for (;;) { // the least word behind the last one
        Str least = {0};
        for (size_t i = 0, from; i < s.n;) {
            while (i < s.n && char_is_space(s.c[i])) i++;
            for (from = i; i < s.n && !char_is_space(s.c[i]);) i++;
            Str word = js_part(s, from, i);
            bool is_behind = word.n && js_compare(word, last) > 0;
            if (is_behind && (!least.n || js_compare(word, least) < 0)) least = word;
        }
        jinja_spend(j, s.n);
        if (!least.n) return js_text(&t);
        if (last.n) js_add_char(j, &t, ' ');
        js_add(j, &t, least);
        last = least;
    }
}

static void add_attribute(Jinja *j, Text *t, const char *name, Str value) {
    js_add_ascii(j, t, name);
    add_escaped(j, t, value);
    js_add_char(j, t, '"');
}

Value jinja_urlize(Jinja *j, const Value *a) {
    Text attributes = {0}, escaped = {0}, t = {0};
    Links l = {.j = j, .limit = jv_int_or(j, a[1], -1, "trim_url_limit")};
    add_attribute(j, &attributes, " rel=\"", relations(j, a[4], jv_truth(j, a[2])));
    if (jv_is_given(a[3])) add_attribute(j, &attributes, " target=\"", jv_need_str(j, a[3], "target"));
    l.attributes = js_text(&attributes);
    l.schemes = jv_is_given(a[5]) ? jv_items(j, a[5]) : jv_new_seq(j, 0);
    for (size_t i = 0; i < l.schemes->n; i++)
        if (!matches(j, SCHEME, jv_need_str(j, l.schemes->items[i], "a scheme")))
            jinja_fail(j, ERR_RUN, "urlize knows no such scheme; one is written like \"tel:\"");
    add_escaped(j, &escaped, jv_string(j, a[0]));
    Str s = js_text(&escaped);
    for (size_t i = 0, from; i < s.n;) {
        for (from = i; i < s.n && char_is_space(s.c[i]);) i++;
        js_add(j, &t, js_part(s, from, i));
        for (from = i; i < s.n && !char_is_space(s.c[i]);) i++;
        if (i > from) add_linked(&l, &t, js_part(s, from, i));
    }
    return jv_str(js_text(&t));
}
