/* The byte alphabet of GPT-2: printable Latin-1 bytes stand for themselves, the other 68 are numbered from U+0100. */
#include "base/ascii.h"
#include "text/tokenizer_impl.h"

static bool is_printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

/* The bytes without a printable form, in order: 00..20, 7F..A0, AD. */
uint32_t mq__byte_to_code(uint8_t byte)
{
    if (is_printable(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x100u + 0x21 + (byte - 0x7Fu);
    return 0x100u + 0x21 + 0x22;
}

int mq__code_to_byte(uint32_t code)
{
    if (code < 0x100) return is_printable(code) ? (int)code : -1;
    const uint32_t n = code - 0x100;
    if (n < 0x21) return (int)n;
    if (n < 0x21 + 0x22) return (int)(n - 0x21 + 0x7F);
    return n == 0x21 + 0x22 ? 0xAD : -1;
}

bool mq__bytes_to_alphabet(const char *bytes, size_t count, mq_buf *out)
{
    for (size_t i = 0; i < count; i++) {
        if (!mq__utf8_put(out, mq__byte_to_code((uint8_t)bytes[i]))) return false;
    }
    return true;
}

int mq__byte_token_value(mq_text text)
{
    const char *p = text.data;
    if (text.bytes != 6 || p[0] != '<' || p[1] != '0' || p[2] != 'x' || p[5] != '>') return -1;
    const int high = mq__hex_value(p[3]), low = mq__hex_value(p[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}
