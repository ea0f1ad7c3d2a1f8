/* What messages are made of, and whether one came back as it was.
 *
 * A message is a tag and a text that all messages share.  With permessage-deflate the tag stands in a stored block of its
 * own (RFC 1951 3.2.4), so that the text is deflated once and every message still is another one.
 */
#include "load.h"
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { STORED = 5 };                    /* bytes of a stored block before its data */
static const unsigned char TAIL[] = {0, 0, 0xFF, 0xFF};     /* what RFC 7692 7.2.1 leaves out */
static const char GREETING[] = "ready";

size_t message_len;
static unsigned char *text;             /* what every message has behind its tag, the place of the tag included */
static unsigned char *payload;          /* what frames carry: the text, or it deflated */
static size_t payload_len, tag_len, tag_at;     /* tag_at: in the message on the wire */
static unsigned char inflated[256 * 1024];

/* ---- making ------------------------------------------------------------------------------------------------------ */

static uint32_t next_random(uint32_t *x) { return (*x = *x * 1664525u + 1013904223u) >> 24; }

static void words(void) {
    static const char *const list[] = {"the ", "quick ", "brown ", "fox ", "jumps ", "over ", "a ", "lazy ", "dog, ",
                                       "while ", "seven ", "wizards ", "make ", "toxic ", "brew. "};
    uint32_t x = 12345;
    for (size_t at = 0; at < option.size;)
        for (const char *word = list[next_random(&x) % 15]; *word && at < option.size; word++)
            text[at++] = (unsigned char)*word;
}

static void deflate_text(void) {
    z_stream z = {0};
    size_t room;
    if (deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    room = deflateBound(&z, option.size) + STORED + TAG + 16;
    payload = calloc(1, room);
    if (!payload)
        abort();
    payload[1] = TAG;
    payload[3] = (unsigned char)~TAG;
    payload[4] = 0xFF;
    z.next_in = text + TAG;
    z.avail_in = (uInt)(option.size - TAG);
    z.next_out = payload + STORED + TAG;
    z.avail_out = (uInt)(room - STORED - TAG);
    if (deflate(&z, Z_SYNC_FLUSH) != Z_OK || z.avail_in || !z.avail_out)
        abort();
    payload_len = room - z.avail_out - sizeof TAIL;
    deflateEnd(&z);
}

static size_t head_len(size_t n) { return 6 + (n < 126 ? 0 : n < 65536 ? 2 : 8); }

static size_t part(int i) {
    size_t each = payload_len / (size_t)option.fragments;
    return i + 1 < option.fragments ? each : payload_len - each * (size_t)i;
}

void make_text(void) {
    uint32_t x = 12345;
    text = malloc(option.size + 1);
    if (!text)
        abort();
    for (size_t i = 0; i < option.size; i++)
        text[i] = option.binary ? (unsigned char)next_random(&x) : (unsigned char)(' ' + next_random(&x) % 95);
    payload = text;
    payload_len = option.size;
    if (option.deflate) {
        words();
        deflate_text();
    }
    tag_len = option.block ? TAG_MAX : option.size < TAG ? option.size : TAG;
    tag_at = head_len(part(0)) + (option.deflate ? STORED : 0);
    for (int i = 0; i < option.fragments; i++)
        message_len += head_len(part(i)) + part(i);
}

void make_message(Connection *c) {
    if (getrandom(c->mask, sizeof c->mask, 0) != sizeof c->mask)
        abort();
    unsigned char *p = c->frames ? c->frames : malloc(message_len), *source = payload;
    if (!p)
        abort();
    c->frames = p;
    for (int i = 0; i < option.fragments; i++) {
        size_t n = part(i);
        int opcode = i ? 0 : (option.binary ? 2 : 1) | (option.deflate ? 0x40 : 0);
        *p++ = (unsigned char)((i + 1 == option.fragments ? 0x80 : 0) | opcode);
        *p++ = (unsigned char)(0x80 | (n < 126 ? n : n < 65536 ? 126 : 127));
        for (size_t bytes = head_len(n) - 6; bytes--;)
            *p++ = (unsigned char)(n >> 8 * bytes);
        memcpy(p, c->mask, 4);
        p += 4;
        for (size_t j = 0; j < n; j++)
            *p++ = *source++ ^ c->mask[j & 3];
    }
}

bool blocks(const Connection *c, uint32_t number) { return option.block && (number + c->id) % 100 == 0; }

static void write_tag(const Connection *c, char *out, uint32_t number, uint32_t id) {
    static const char digits[] = "0123456789abcdef";
    out[TAG] = blocks(c, number) ? '!' : ' ';
    for (int i = 0; i < 8; i++, number >>= 4, id >>= 4) {
        out[i] = digits[number & 15];       /* lowest digit first: a payload of 2 bytes still tells 256 messages apart */
        out[8 + i] = digits[id & 15];
    }
}

void put_tag(const Connection *c, unsigned char *frames, uint32_t number) {
    char tag[TAG_MAX];
    size_t shift = option.deflate ? STORED : 0;
    write_tag(c, tag, number, c->id);
    for (size_t i = 0; i < tag_len; i++)
        frames[tag_at + i] = (unsigned char)tag[i] ^ c->mask[(shift + i) & 3];
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

void expect(Connection *c) { write_tag(c, c->expected, c->received, option.mode == FANOUT ? publisher_id() : c->id); }

static void compare_greeting(Connection *c, const unsigned char *p, size_t n) {
    if (n > sizeof GREETING - 1 - c->position || memcmp(p, GREETING + c->position, n))
        FAIL(c, "connection %u: the subscription was not answered with \"%s\"", c->id, GREETING);
    c->position += n;
}

static void compare(Connection *c, const unsigned char *p, size_t n) {
    if (!c->greeted) {
        compare_greeting(c, p, n);
        return;
    }
    if (n > option.size - c->position)
        FAIL(c, "connection %u: echo of message %u is longer than what was sent", c->id, c->received);
    size_t in_tag = 0;
    if (c->position < tag_len) {
        in_tag = n < tag_len - c->position ? n : tag_len - c->position;
        if (memcmp(p, c->expected + c->position, in_tag))
            FAIL(c, "connection %u: not the echo of message %u", c->id, c->received);
    }
    if (memcmp(p + in_tag, text + c->position + in_tag, n - in_tag))
        FAIL(c, "connection %u: damaged echo of message %u near byte %zu", c->id, c->received, c->position);
    c->position += n;
}

static void inflate_bytes(Connection *c, const unsigned char *p, size_t n) {
    if (!c->inflater) {
        c->inflater = calloc(1, sizeof *c->inflater);
        if (!c->inflater || inflateInit2(c->inflater, -15) != Z_OK)
            abort();
    }
    z_stream *z = c->inflater;
    z->next_in = (unsigned char *)p;
    z->avail_in = (uInt)n;
    do {
        z->next_out = inflated;
        z->avail_out = sizeof inflated;
        int result = inflate(z, Z_SYNC_FLUSH);
        if (result != Z_OK && result != Z_BUF_ERROR && result != Z_STREAM_END)
            FAIL(c, "connection %u: echo of message %u cannot be inflated", c->id, c->received);
        compare(c, inflated, sizeof inflated - z->avail_out);
    } while (c->state == OPEN && !z->avail_out);
}

void data_bytes(Connection *c, const unsigned char *p, size_t n) {
    if (c->compressed)
        inflate_bytes(c, p, n);
    else
        compare(c, p, n);
}

/* The end of a message; leaves the connection closed if it was not the one expected. */
void data_end(Connection *c) {
    if (c->compressed) {
        inflate_bytes(c, TAIL, sizeof TAIL);
        if (c->state != OPEN)
            return;
        inflateReset(c->inflater);
    }
    size_t wanted = c->greeted ? option.size : sizeof GREETING - 1;
    if (c->position != wanted)
        FAIL(c, "connection %u: echo of message %u has %zu bytes, not %zu", c->id, c->received, c->position, wanted);
    c->position = 0;
}
