#include "cli/chat_edit.h"

#ifdef MQ_EDITLINE

#include "base/mem.h"
#include "base/unicode.h"
#include "cli/chat_history.h"
#include "cli/chat_input.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct cli_editor {
    EditLine *el;
    History *history;
    const char *prompt;
    bool brackets;
};

static volatile sig_atomic_t resized, continued;

static void on_terminal_signal(int number)
{
    if (number == SIGWINCH) resized = 1;
    if (number == SIGCONT) continued = 1;
}

static char *give_prompt(EditLine *el)
{
    cli_editor *editor;
    el_get(el, EL_CLIENTDATA, &editor);
    return (char *)(uintptr_t)editor->prompt;
}

/* What libedit may do between two keys only, so not in a handler. */
static void follow_terminal(EditLine *el)
{
    if (resized) {
        resized = 0;
        el_resize(el);
    }
    if (continued) { /* the shell had the terminal in between and left it as it likes it */
        continued = 0;
        el_set(el, EL_PREP_TERM, 0);
        el_set(el, EL_PREP_TERM, 1);
        fputs("\r\n", stdout);
        el_set(el, EL_REFRESH);
    }
}

static int read_byte(EditLine *el, char *byte)
{
    int n;
    do {
        follow_terminal(el);
        n = cli_key_byte(byte);
    } while (n < 0 && errno == EINTR && !cli_interrupted());
    return n;
}

/* One character: libedit's own reader goes on after Ctrl-C. Bytes that are no UTF-8 are passed over. */
static int read_character(EditLine *el, wchar_t *character)
{
    char bytes[4];
    size_t count = 0;
    while (true) {
        const int n = read_byte(el, &bytes[count]);
        if (n != 1) return n;
        count++;
        size_t position = 0;
        const uint32_t code = mq__utf8_next(bytes, count, &position);
        if (code != MQ_UTF8_INVALID) {
            *character = (wchar_t)code;
            return 1;
        }
        if (mq__utf8_incomplete_tail(bytes, count) == count) continue;
        bytes[0] = bytes[count - 1]; /* it may begin the next character */
        count = count > 1 && mq__utf8_incomplete_tail(bytes, 1) == 1;
    }
}

/* The characters up to the mark that ends a paste. */
typedef struct pasted {
    wchar_t *text;
    size_t count, cap;
} pasted;

static bool append_pasted(pasted *p, wchar_t character)
{
    if (p->count + 1 >= p->cap) {
        const size_t cap = p->cap ? 2 * p->cap : 1024;
        wchar_t *larger = cap * sizeof *larger <= CLI_TURN_MAX ? mq__realloc(p->text, cap * sizeof *larger) : NULL;
        if (!larger) return false;
        p->text = larger;
        p->cap = cap;
    }
    p->text[p->count++] = character;
    p->text[p->count] = L'\0';
    return true;
}

/* Terminals send Enter for a pasted newline. Other control characters would act on the terminal when they are shown. */
static bool keep_pasted(pasted *p, wchar_t character)
{
    const bool is_second = character == L'\n' && p->count > 0 && p->text[p->count - 1] == L'\r';
    if (is_second) p->text[p->count - 1] = L'\n';
    return is_second || character == 0 || append_pasted(p, character);
}

static void clean_pasted(pasted *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++) {
        const wchar_t c = p->text[i] == L'\r' ? L'\n' : p->text[i];
        if (c >= L' ' ? c != 0x7f : c == L'\n' || c == L'\t') p->text[kept++] = c;
    }
    if (p->text) p->text[kept] = L'\0';
    p->count = kept;
}

/* A paste that is too large is read to its end and left out. */
static unsigned char insert_paste(EditLine *el, int key)
{
    static const wchar_t mark[] = L"\033[201~";
    enum { LENGTH = sizeof mark / sizeof mark[0] - 1 };
    wchar_t character, last[LENGTH] = {0};
    pasted p = {0};
    bool whole = false, kept = true;
    (void)key;
    while (!whole && el_wgetc(el, &character) == 1) {
        wmemmove(last, last + 1, LENGTH - 1);
        last[LENGTH - 1] = character;
        whole = wmemcmp(last, mark, LENGTH) == 0;
        kept = kept && keep_pasted(&p, character);
    }
    if (whole && kept) {
        p.count -= LENGTH;
        clean_pasted(&p);
        if (p.count > 0) el_winsertstr(el, p.text);
    }
    mq__free(p.text);
    return whole ? CC_REFRESH : CC_EOF;
}

static void take_history(void *context, const char *turn)
{
    cli_editor *editor = context;
    HistEvent event;
    history(editor->history, &event, H_ENTER, turn);
}

static bool set_up(cli_editor *e)
{
    HistEvent event;
    const char *mode;
    if (!e->el || !e->history) return false;
    history(e->history, &event, H_SETSIZE, CLI_HISTORY_TURNS);
    history(e->history, &event, H_SETUNIQUE, 1);
    el_set(e->el, EL_CLIENTDATA, e);
    el_set(e->el, EL_PROMPT, give_prompt);
    el_set(e->el, EL_SIGNAL, 0);
    el_set(e->el, EL_EDITOR, "emacs");
    el_set(e->el, EL_SETTY, "-d", "-icrnl", "-inlcr", NULL); /* else "\r\n" in a paste would come as two newlines */
    el_set(e->el, EL_HIST, history, e->history);
    el_wset(e->el, EL_GETCFN, read_character);
    el_set(e->el, EL_ADDFN, "mq-paste", "insert what is pasted", insert_paste);
    el_source(e->el, NULL); /* ~/.editrc */
    /* In vi mode a lone Escape is a command, so no sequence may begin with it. */
    e->brackets = el_get(e->el, EL_EDITOR, &mode) == 0 && strcmp(mode, "emacs") == 0 &&
                  el_set(e->el, EL_BIND, "\\e[200~", "mq-paste", NULL) == 0;
    return true;
}

cli_editor *cli_editor_open(const char *prompt)
{
    cli_editor *e = mq__alloc_zero(1, sizeof *e);
    if (!e) return NULL;
    /* libedit shows characters by the locale; models read UTF-8 whatever it is. */
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    e->prompt = prompt;
    e->el = el_init("mixquant", stdin, stdout, stderr);
    e->history = history_init();
    if (!set_up(e)) {
        cli_editor_close(e);
        return NULL;
    }
    cli_history_load(take_history, e);
    const struct sigaction action = {.sa_handler = on_terminal_signal, .sa_flags = SA_RESTART};
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGCONT, &action, NULL);
    return e;
}

void cli_editor_close(cli_editor *editor)
{
    if (!editor) return;
    if (editor->el) el_end(editor->el);
    if (editor->history) history_end(editor->history);
    mq__free(editor);
}

bool cli_editor_brackets(const cli_editor *editor)
{
    return editor->brackets;
}

static void copy_line(mq_buf *turn, const wchar_t *line, size_t count)
{
    mq__buf_clear(turn);
    for (size_t i = 0; i < count; i++) {
        mq__utf8_put(turn, (uint32_t)line[i]);
    }
}

cli_edit_result cli_editor_read(cli_editor *editor, mq_buf *turn)
{
    int count = 0;
    continued = 0;
    el_set(editor->el, EL_PREP_TERM, 1); /* before the prompt invites keys: libedit would do it after */
    const wchar_t *line = el_wgets(editor->el, &count);
    clearerr(stdout); /* of what libedit wrote when a signal came */
    if (!line) {
        const LineInfoW *typed = el_wline(editor->el);
        copy_line(turn, typed->buffer, (size_t)(typed->lastchar - typed->buffer));
        return cli_interrupted() ? CLI_EDIT_INTERRUPTED : CLI_EDIT_END;
    }
    copy_line(turn, line, (size_t)count - (count > 0 && line[count - 1] == L'\n'));
    if (turn->len > 0 && !turn->failed) {
        take_history(editor, turn->data);
        cli_history_append(turn->data);
    }
    return CLI_EDIT_TURN;
}

#else

cli_editor *cli_editor_open(const char *prompt)
{
    (void)prompt;
    return NULL;
}

void cli_editor_close(cli_editor *editor)
{
    (void)editor;
}

bool cli_editor_brackets(const cli_editor *editor)
{
    return editor != NULL;
}

cli_edit_result cli_editor_read(cli_editor *editor, mq_buf *turn)
{
    (void)editor;
    (void)turn;
    return CLI_EDIT_END;
}

#endif
