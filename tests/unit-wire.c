/* SPDX-License-Identifier: BSD-3-Clause */
/* The link's frames: there and back, cut at every length, every bit flipped, every rule of
 * every type broken; decoding noise never reads out of its buffer (run under ASan).
 */
#include <config.h>

#include "common/crc32c.h"
#include "common/wire.h"
#include "tests/tap.h"

static uint64_t seed = 88172645463325252u;

static uint64_t
rnd (void)
{
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static const uint8_t all_types[] = {
  WIRE_HELLO, WIRE_HELLO_OK, WIRE_REFUSE, WIRE_WRITE, WIRE_ZERO, WIRE_TRIM,
  WIRE_FLUSH, WIRE_ACK, WIRE_ERROR, WIRE_PING, WIRE_PONG, WIRE_ENTER,
  WIRE_RESYNC_WRITE, WIRE_RESYNC_ZERO, WIRE_RECORD, WIRE_DIGEST_REQ, WIRE_DIGEST, WIRE_BYE,
  WIRE_MAP, WIRE_STABLE,
};

/* A valid header of this type. */
static struct wire_header
sample (uint8_t type)
{
  struct wire_header h = { .type = type, .tenure = 7 };

  switch (type) {
  case WIRE_WRITE:
  case WIRE_RESYNC_WRITE:
    h.flags = WIRE_F_FUA;
    h.seq = 99;
    h.offset = UINT64_C (0x123456789000);
    h.length = h.payload_len = 65536;
    h.missing = 0x82;
    break;
  case WIRE_ZERO:
  case WIRE_RESYNC_ZERO:
    h.flags = WIRE_F_FUA | WIRE_F_MAY_TRIM;
    h.seq = UINT64_MAX;
    h.length = UINT32_MAX;
    h.missing = 1;
    break;
  case WIRE_TRIM:
    h.seq = 1;
    h.offset = STORE_MAX_BYTES - 1;
    h.length = 1;
    break;
  case WIRE_FLUSH:
  case WIRE_ACK:
  case WIRE_PING:
  case WIRE_PONG:
  case WIRE_STABLE:
    h.seq = 12345;
    break;
  case WIRE_MAP:
    h.seq = 9;
    h.flags = WIRE_F_ALL;
    h.missing = 4;
    break;
  case WIRE_ERROR:
  case WIRE_ENTER:
    h.seq = 3;
    h.payload_len = 40;
    break;
  case WIRE_RECORD:
    h.payload_len = 40;
    break;
  case WIRE_HELLO:
  case WIRE_HELLO_OK:
  case WIRE_REFUSE:
    h.payload_len = WIRE_MAX_CONTROL;
    break;
  case WIRE_DIGEST_REQ:
    h.seq = 4;
    h.length = 1048576;
    h.payload_len = 8;
    break;
  case WIRE_DIGEST:
    h.seq = 4;
    h.length = 1048576;
    h.payload_len = 16 * WIRE_DIGEST_LEN;
    break;
  }
  return h;
}

static bool
same (const struct wire_header *a, const struct wire_header *b)
{
  return a->type == b->type && a->flags == b->flags && a->tenure == b->tenure && a->seq == b->seq
         && a->offset == b->offset && a->length == b->length && a->payload_len == b->payload_len
         && a->missing == b->missing;
}

/* The bytes of a header that the encoder would refuse to write. */
static enum wire_status
decode_forged (const struct wire_header *h)
{
  struct wire_header out = { .tenure = 42 };
  uint8_t buf[WIRE_HEADER_LEN] = { 0 };
  enum wire_status status;

  put_le32 (buf, WIRE_MAGIC);
  buf[4] = WIRE_VERSION;
  buf[5] = h->type;
  put_le16 (buf + 6, h->flags);
  put_le64 (buf + 8, h->tenure);
  put_le64 (buf + 16, h->seq);
  put_le64 (buf + 24, h->offset);
  put_le32 (buf + 32, h->length);
  put_le32 (buf + 36, h->payload_len);
  put_le32 (buf + 40, h->missing);
  put_le32 (buf + 60, crc32c (0, buf, 60));
  status = wire_decode_header (buf, sizeof buf, &out);
  check (status == WIRE_OK || out.tenure == 42, "a refused header is not stored");
  return status;
}

static void
headers (void)
{
  struct wire_header h, out;
  uint8_t buf[WIRE_HEADER_LEN];
  unsigned i, bit;
  size_t len;

  for (i = 0; i < ARRAY_SIZE (all_types); i++) {
    h = sample (all_types[i]);
    wire_encode_header (&h, buf);
    memset (&out, 0xff, sizeof out);
    check (wire_decode_header (buf, sizeof buf, &out) == WIRE_OK && same (&h, &out),
           "%s there and back", wire_type_name (h.type));
    for (len = 0; len < sizeof buf; len++) {
      /* In its own allocation: a read beyond it is found. */
      uint8_t *copy = malloc (len + 1);

      memcpy (copy, buf, len);
      copy = realloc (copy, len ? len : 1);
      check (wire_decode_header (copy, len, &out) == WIRE_SHORT, "%s cut at %zu",
             wire_type_name (h.type), len);
      free (copy);
    }
    for (bit = 0; bit < 8 * sizeof buf; bit++) {
      enum wire_status status;

      buf[bit / 8] ^= (uint8_t) (1 << bit % 8);
      status = wire_decode_header (buf, sizeof buf, &out);
      check (status == (bit < 32 ? WIRE_BAD_MAGIC : WIRE_BAD_CRC), "%s with bit %u flipped: %s",
             wire_type_name (h.type), bit, wire_strerror (status));
      buf[bit / 8] ^= (uint8_t) (1 << bit % 8);
    }
  }
  ok (tap_failed == 0, "headers: every type there and back, cut anywhere, any bit flipped");

  /* The bytes are as wire.h says. */
  h = (struct wire_header) { WIRE_WRITE, WIRE_F_FUA, 0x0102030405060708, 0x1112131415161718,
                             0x0021222324252627, 0x30, 0x30, 0x81 };
  wire_encode_header (&h, buf);
  ok (memcmp (buf,
              "\x43\x52\x47\x4c\x01\x04\x01\x00"
              "\x08\x07\x06\x05\x04\x03\x02\x01"
              "\x18\x17\x16\x15\x14\x13\x12\x11"
              "\x27\x26\x25\x24\x23\x22\x21\x00"
              "\x30\0\0\0\x30\0\0\0\x81\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
              60)
        == 0,
      "the layout is the documented one");
  is (wire_decode_header ((const uint8_t *) "GET / HTTP/1.1\r\n", 16, &out), WIRE_BAD_MAGIC,
      "a web client is told apart at once");

  wire_encode_header (&h, buf);
  buf[4] = 2;
  put_le32 (buf + 60, crc32c (0, buf, 60));
  is (wire_decode_header (buf, sizeof buf, &out), WIRE_BAD_VERSION, "a later header layout");
  for (i = 44; i < 60; i++) {
    wire_encode_header (&h, buf);
    buf[i] = 1;
    put_le32 (buf + 60, crc32c (0, buf, 60));
    check (wire_decode_header (buf, sizeof buf, &out) == WIRE_BAD_FIELD, "reserved byte %u", i);
  }
}

static void
rules (void)
{
  struct wire_header h;
  unsigned i, type, flag;

  for (type = 0; type < 256; type++) {
    bool known = memchr (all_types, (int) type, sizeof all_types) != NULL;

    if (known)
      continue;
    h = sample (WIRE_PING);
    h.type = (uint8_t) type;
    check (decode_forged (&h) == WIRE_BAD_TYPE, "type %u", type);
    check (strcmp (wire_type_name ((uint8_t) type), "type?") == 0, "has no name");
    check (!wire_type_is_operation ((uint8_t) type), "is no operation");
  }
  for (i = 0; i < ARRAY_SIZE (all_types); i++) {
    const char *name = wire_type_name (all_types[i]);
    bool is_write = all_types[i] == WIRE_WRITE || all_types[i] == WIRE_RESYNC_WRITE;
    bool is_zero = all_types[i] == WIRE_ZERO || all_types[i] == WIRE_RESYNC_ZERO;
    bool is_map = all_types[i] == WIRE_MAP;
    bool changes = is_write || is_zero || all_types[i] == WIRE_TRIM;
    bool ranged = changes || all_types[i] == WIRE_DIGEST_REQ || all_types[i] == WIRE_DIGEST;
    bool keeps = all_types[i] == WIRE_WRITE || all_types[i] == WIRE_ZERO;
    uint16_t allowed = (uint16_t) ((changes ? WIRE_F_FUA : 0) | (is_zero ? WIRE_F_MAY_TRIM : 0)
                                   | (keeps ? WIRE_F_KEEP : 0)
                                   | (is_map ? WIRE_F_ALL | WIRE_F_END : 0)
                                   | (all_types[i] == WIRE_DIGEST ? WIRE_F_FAILED : 0)
                                   | (all_types[i] == WIRE_STABLE ? WIRE_F_SETTLED | WIRE_F_CLEAR | WIRE_F_SYNC : 0));

    for (flag = 0; flag < 16; flag++) {
      h = sample (all_types[i]);
      h.flags = (uint16_t) (1 << flag);
      if (all_types[i] == WIRE_DIGEST && h.flags == WIRE_F_FAILED)
        h.payload_len = 0;
      check (decode_forged (&h) == (h.flags & allowed ? WIRE_OK : WIRE_BAD_FLAGS), "%s with flag %u",
             name, flag);
    }
    for (flag = 0; flag < 32; flag++) {
      h = sample (all_types[i]);
      h.missing = UINT32_C (1) << flag;
      check (decode_forged (&h) == ((changes || is_map) && flag < CRG_MAX_SITES ? WIRE_OK : WIRE_BAD_FIELD),
             "%s with site %u missing", name, flag);
    }
    h = sample (all_types[i]);
    h.seq = 0;
    check (decode_forged (&h) == (wire_type_is_operation (all_types[i]) ? WIRE_BAD_FIELD : WIRE_OK),
           "%s without a number", name);
    if (ranged) {
      h = sample (all_types[i]);
      h.length = 0;
      check (decode_forged (&h) != WIRE_OK, "%s of nothing", name);
      h = sample (all_types[i]);
      h.offset = STORE_MAX_BYTES - h.length;
      check (decode_forged (&h) == WIRE_OK, "%s up to the largest store's end", name);
      h.offset++;
      check (decode_forged (&h) == WIRE_BAD_RANGE, "%s one byte beyond", name);
      h.offset = UINT64_MAX;
      check (decode_forged (&h) == WIRE_BAD_RANGE, "%s wrapping round", name);
    }
    else {
      h = sample (all_types[i]);
      h.length = 1;
      check (decode_forged (&h) == WIRE_BAD_LENGTH, "%s with a length", name);
      h = sample (all_types[i]);
      h.offset = is_map ? STORE_MAX_BYTES + 1 : 1;
      check (decode_forged (&h) == WIRE_BAD_FIELD, "%s with an offset", name);
    }
    /* Payload: one byte more than the sample, and far too much. */
    h = sample (all_types[i]);
    h.payload_len = LINK_MAX_PAYLOAD + WIRE_DIGEST_LEN;
    if (is_write)
      h.length = h.payload_len;
    check (decode_forged (&h) == WIRE_BAD_LENGTH, "%s with a payload over the maximum", name);
    h.payload_len = UINT32_MAX;
    if (is_write)
      h.length = h.payload_len;
    check (decode_forged (&h) == WIRE_BAD_LENGTH, "%s with a payload of 4 GiB", name);
    h = sample (all_types[i]);
    if (h.payload_len > 0) {
      h.payload_len = 0;
      check (decode_forged (&h) == WIRE_BAD_LENGTH, "%s without its payload", name);
    }
    else {
      h.payload_len = 1;
      check (decode_forged (&h) == WIRE_BAD_LENGTH, "%s with a payload", name);
    }
    if (is_write) {
      h = sample (all_types[i]);
      h.payload_len--;
      check (decode_forged (&h) == WIRE_BAD_LENGTH, "%s with less data than it says", name);
      h = sample (all_types[i]);
      h.length = h.payload_len = LINK_MAX_PAYLOAD;
      check (decode_forged (&h) == WIRE_OK, "%s of the largest payload", name);
    }
  }
  h = sample (WIRE_HELLO);
  h.payload_len = WIRE_MAX_CONTROL + 1;
  is (decode_forged (&h), WIRE_BAD_LENGTH, "a HELLO one byte too long");
  h = sample (WIRE_MAP);
  h.flags = 0;
  check (decode_forged (&h) == WIRE_BAD_LENGTH, "a MAP without bits");
  h.payload_len = WIRE_MAP_BYTES;
  is (decode_forged (&h), WIRE_OK, "a MAP with bits");
  h = sample (WIRE_DIGEST);
  h.payload_len++;
  is (decode_forged (&h), WIRE_BAD_LENGTH, "a digest too short");
  h = sample (WIRE_DIGEST);
  h.flags = WIRE_F_FAILED;
  is (decode_forged (&h), WIRE_BAD_LENGTH, "digests of what can't be read");
  h = sample (WIRE_HELLO);
  h.seq = 1;
  is (decode_forged (&h), WIRE_BAD_FIELD, "a HELLO has no number");
  ok (tap_failed == 0, "every rule of every type");
}

/* ---- payloads: one table of codecs, so that each gets the same treatment ------------------- */

union any {
  struct wire_hello hello;
  struct wire_hello_ok hello_ok;
  struct wire_refuse refuse;
  struct wire_failure failure;
  struct wire_record record;
  struct wire_digest_req digest_req;
};

#define CODEC(what)                                                                               \
  static size_t enc_##what (const union any *m, uint8_t *buf, size_t size)                        \
  {                                                                                               \
    return wire_encode_##what (&m->what, buf, size);                                              \
  }                                                                                               \
  static enum wire_status dec_##what (const uint8_t *buf, size_t len, union any *m)               \
  {                                                                                               \
    return wire_decode_##what (buf, len, &m->what);                                               \
  }
CODEC (hello)
CODEC (hello_ok)
CODEC (refuse)
CODEC (failure)
CODEC (record)
CODEC (digest_req)

static const struct codec {
  const char *name;
  size_t size;
  size_t (*enc) (const union any *, uint8_t *, size_t);
  enum wire_status (*dec) (const uint8_t *, size_t, union any *);
} codecs[] = {
  { "HELLO", sizeof (struct wire_hello), enc_hello, dec_hello },
  { "HELLO_OK", sizeof (struct wire_hello_ok), enc_hello_ok, dec_hello_ok },
  { "REFUSE", sizeof (struct wire_refuse), enc_refuse, dec_refuse },
  { "ERROR", sizeof (struct wire_failure), enc_failure, dec_failure },
  { "RECORD", sizeof (struct wire_record), enc_record, dec_record },
  { "DIGEST_REQ", sizeof (struct wire_digest_req), enc_digest_req, dec_digest_req },
};

static void
random_name (char *name)
{
  static const char set[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
  unsigned i, n = 1 + (unsigned) (rnd () % CRG_NAME_MAX);

  memset (name, 0, CRG_NAME_MAX + 1);
  for (i = 0; i < n; i++)
    name[i] = set[rnd () % (i ? 39 : 36)];
}

static void
random_bytes (uint8_t *p, size_t n)
{
  while (n--)
    *p++ = (uint8_t) rnd ();
}

static void
random_reason (char *p)
{
  unsigned i, n = (unsigned) (rnd () % (CRG_REASON_MAX + 1));

  memset (p, 0, CRG_REASON_MAX + 1);
  for (i = 0; i < n; i++)
    p[i] = (char) (' ' + rnd () % 95);
}

static void
random_message (unsigned which, union any *m)
{
  memset (m, 0, sizeof *m);
  switch (which) {
  case 0:
    m->hello.proto_min = (uint16_t) (1 + rnd () % 3);
    m->hello.proto_max = (uint16_t) (m->hello.proto_min + rnd () % 3);
    m->hello.features = rnd ();
    random_bytes (m->hello.cluster_id, CRG_ID_LEN);
    random_bytes (m->hello.lineage, CRG_ID_LEN);
    random_bytes (m->hello.crg_id, CRG_ID_LEN);
    random_bytes (m->hello.iasp_id, CRG_ID_LEN);
    random_bytes (m->hello.boot_id, CRG_ID_LEN);
    m->hello.session = rnd ();
    m->hello.tenure = rnd ();
    m->hello.generation = rnd ();
    m->hello.size = 1 + rnd () % STORE_MAX_BYTES;
    m->hello.block_size = UINT32_C (1) << rnd () % 13;
    m->hello.dirty_block_size = UINT32_C (4096) << rnd () % 9;
    m->hello.site = (uint8_t) (rnd () % CRG_MAX_SITES);
    m->hello.peer_site = (uint8_t) (rnd () % CRG_MAX_SITES);
    random_name (m->hello.crg);
    random_name (m->hello.iasp);
    random_name (m->hello.node);
    break;
  case 1:
    m->hello_ok.proto = (uint16_t) (1 + rnd () % 3);
    m->hello_ok.features = rnd ();
    m->hello_ok.flags = (uint16_t) (rnd () & WIRE_OK_ALL_FLAGS);
    random_bytes (m->hello_ok.boot_id, CRG_ID_LEN);
    m->hello_ok.session = rnd ();
    m->hello_ok.tenure = rnd ();
    m->hello_ok.generation = rnd ();
    m->hello_ok.since = rnd ();
    m->hello_ok.dirty_bytes = rnd ();
    m->hello_ok.window_bytes
      = (uint32_t) (LINK_MAX_PAYLOAD + rnd () % (LINK_WINDOW_BYTES - LINK_MAX_PAYLOAD + 1));
    m->hello_ok.window_frames = (uint32_t) (1 + rnd () % LINK_WINDOW_FRAMES);
    random_name (m->hello_ok.node);
    break;
  case 2:
    m->refuse.code = (uint32_t) (rnd () % WIRE_REFUSE_END);
    m->refuse.tenure = rnd ();
    random_reason (m->refuse.reason);
    break;
  case 3:
    m->failure.code = (uint32_t) (rnd () % WIRE_E_END);
    random_reason (m->failure.reason);
    break;
  case 4:
    m->record.tenure = rnd ();
    m->record.generation = rnd ();
    m->record.since = m->record.generation - rnd () % (m->record.generation | 1);
    m->record.loss = rnd ();
    m->record.in_set = (uint32_t) (1 + rnd () % 255);
    break;
  case 5:
    m->digest_req.algorithm = 1;
    m->digest_req.block_size = UINT32_C (4096) << rnd () % 9;
    break;
  }
}

static void
payloads (void)
{
  union any m, out;
  uint8_t buf[WIRE_MAX_CONTROL + 16], again[WIRE_MAX_CONTROL];
  unsigned k, i, bit;
  size_t n, len, n2;

  for (k = 0; k < ARRAY_SIZE (codecs); k++) {
    for (i = 0; i < 300; i++) {
      random_message (k, &m);
      n = codecs[k].enc (&m, buf, WIRE_MAX_CONTROL);
      check (n > 0 && n <= WIRE_MAX_CONTROL, "%s fits", codecs[k].name);
      memset (&out, 0, sizeof out);
      check (codecs[k].dec (buf, n, &out) == WIRE_OK && memcmp (&m, &out, codecs[k].size) == 0,
             "%s there and back", codecs[k].name);
      memset (buf + n, 0xa5, 16);
      check (codecs[k].dec (buf, n + 16, &out) == WIRE_OK, "%s with a later release's fields",
             codecs[k].name);
      if (i >= 10)
        continue;
      for (len = 0; len < n; len++) {
        uint8_t *copy = malloc (len ? len : 1);

        memcpy (copy, buf, len);
        memset (&out, 0x77, sizeof out);
        check (codecs[k].dec (copy, len, &out) == WIRE_SHORT, "%s cut at %zu", codecs[k].name, len);
        check (*(uint8_t *) &out == 0x77, "%s cut at %zu is not stored", codecs[k].name, len);
        free (copy);
        check (codecs[k].enc (&m, again, len) == 0, "%s into %zu bytes", codecs[k].name, len);
      }
      /* A flipped bit is either refused, or decodes to something that is valid: encoded again
       * it gives what was read (reasons are made printable, unknown codes become "other"). */
      for (bit = 0; bit < 8 * n; bit++) {
        buf[bit / 8] ^= (uint8_t) (1 << bit % 8);
        memset (&out, 0, sizeof out);
        if (codecs[k].dec (buf, n, &out) == WIRE_OK) {
          union any out2;

          n2 = codecs[k].enc (&out, again, sizeof again);
          memset (&out2, 0, sizeof out2);
          check (n2 > 0 && n2 <= n && codecs[k].dec (again, n2, &out2) == WIRE_OK
                   && memcmp (&out, &out2, codecs[k].size) == 0,
                 "%s with bit %u flipped is valid or refused", codecs[k].name, bit);
        }
        buf[bit / 8] ^= (uint8_t) (1 << bit % 8);
      }
    }
    ok (tap_failed == 0, "%s: there and back, cut anywhere, any bit flipped", codecs[k].name);
  }
}

/* One field broken at a time. */
#define BROKEN(which, field, value, want)                                                 \
  do {                                                                                    \
    uint8_t b_[WIRE_MAX_CONTROL];                                                         \
    union any m_, o_;                                                                     \
    size_t n_;                                                                            \
    random_message ((which), &m_);                                                        \
    m_.field = (value);                                                                   \
    n_ = codecs[which].enc (&m_, b_, sizeof b_);                                          \
    is (codecs[which].dec (b_, n_, &o_), (want), codecs[which].name);                     \
  } while (0)

static void
fields (void)
{
  static const char *const names[] = { "Rome", "a/b", "", "..", "a\nb" };
  uint8_t buf[WIRE_MAX_CONTROL];
  union any m, out;
  unsigned i;
  size_t n;

  BROKEN (0, hello.proto_min, 0, WIRE_BAD_FIELD);
  BROKEN (0, hello.proto_max, 0, WIRE_BAD_FIELD);
  BROKEN (0, hello.size, 0, WIRE_BAD_FIELD);
  BROKEN (0, hello.size, STORE_MAX_BYTES + 1, WIRE_BAD_FIELD);
  BROKEN (0, hello.block_size, 0, WIRE_BAD_FIELD);
  BROKEN (0, hello.block_size, 513, WIRE_BAD_FIELD);
  BROKEN (0, hello.block_size, 8192, WIRE_BAD_FIELD);
  BROKEN (0, hello.dirty_block_size, 2048, WIRE_BAD_FIELD);
  BROKEN (0, hello.dirty_block_size, 2 * DIRTY_BLOCK_SIZE_MAX, WIRE_BAD_FIELD);
  BROKEN (0, hello.site, CRG_MAX_SITES, WIRE_BAD_FIELD);
  BROKEN (0, hello.peer_site, 255, WIRE_BAD_FIELD);
  BROKEN (1, hello_ok.proto, 0, WIRE_BAD_FIELD);
  BROKEN (1, hello_ok.flags, 0x20, WIRE_BAD_FLAGS);
  BROKEN (1, hello_ok.window_bytes, LINK_MAX_PAYLOAD - 1, WIRE_BAD_FIELD);
  BROKEN (1, hello_ok.window_bytes, LINK_WINDOW_BYTES + 1, WIRE_BAD_FIELD);
  BROKEN (1, hello_ok.window_frames, 0, WIRE_BAD_FIELD);
  BROKEN (1, hello_ok.window_frames, LINK_WINDOW_FRAMES + 1, WIRE_BAD_FIELD);
  BROKEN (4, record.in_set, 0, WIRE_BAD_FIELD);
  BROKEN (4, record.in_set, 0x100, WIRE_BAD_FIELD);
  BROKEN (4, record.generation, m_.record.since - 1, WIRE_BAD_FIELD);
  BROKEN (5, digest_req.algorithm, 0, WIRE_BAD_FIELD);
  BROKEN (5, digest_req.block_size, 0, WIRE_BAD_FIELD);

  /* The node's name is the last field of HELLO_OK: write others over it. */
  for (i = 0; i < ARRAY_SIZE (names); i++) {
    random_message (1, &m);
    strcpy (m.hello_ok.node, "x");
    n = codecs[1].enc (&m, buf, sizeof buf);
    buf[n - 2] = (uint8_t) strlen (names[i]);
    memcpy (buf + n - 1, names[i], strlen (names[i]));
    is (codecs[1].dec (buf, n - 1 + strlen (names[i]), &out), WIRE_BAD_NAME, "a bad name is refused");
  }
  buf[n - 2] = CRG_NAME_MAX + 1;
  memset (buf + n - 1, 'x', CRG_NAME_MAX + 1);
  is (codecs[1].dec (buf, n + CRG_NAME_MAX, &out), WIRE_BAD_NAME, "a name of 64 bytes is refused");
  buf[n - 2] = 3;
  memcpy (buf + n - 1, "a\0b", 3);
  is (codecs[1].dec (buf, n + 2, &out), WIRE_BAD_NAME, "a name with a NUL is refused");

  random_message (2, &m);
  m.refuse.code = 1000;
  strcpy (m.refuse.reason, "a\x1b[31mred\n");
  n = codecs[2].enc (&m, buf, sizeof buf);
  is (codecs[2].dec (buf, n, &out), WIRE_OK, "a refusal with a code and bytes that we do not know");
  is (out.refuse.code, WIRE_REFUSE_OTHER, "reads as other");
  is_str (out.refuse.reason, "a?[31mred?", "and can't play with a terminal");
  is_str (wire_refuse_name (WIRE_REFUSE_TENURE), "tenure", "a code has a name");
  is_str (wire_refuse_name (4711), "other", "also one that we do not know");
  is_str (wire_error_name (WIRE_E_NO_SPACE), "no-space", "an error has a name");
  is_str (wire_error_name (4711), "other", "also one that we do not know");
  for (i = 0; i < WIRE_REFUSE_END; i++)
    check (wire_refuse_name (i) != NULL, "refusal %u has a name", i);
  for (i = 0; i < WIRE_E_END; i++)
    check (wire_error_name (i) != NULL, "error %u has a name", i);
}

static void
noise (void)
{
  struct wire_header h;
  union any out;
  unsigned i, k;
  size_t len;
  uint8_t *buf;

  for (i = 0; i < 20000; i++) {
    len = rnd () % 700;
    buf = malloc (len ? len : 1);
    random_bytes (buf, len);
    if (len >= WIRE_HEADER_LEN && i % 2) {
      /* Past magic, version and CRC, to the rules. */
      put_le32 (buf, WIRE_MAGIC);
      buf[4] = WIRE_VERSION;
      buf[5] = (uint8_t) (rnd () % 24);
      memset (buf + 44, 0, 16);
      put_le32 (buf + 60, crc32c (0, buf, 60));
    }
    if (wire_decode_header (buf, len, &h) == WIRE_OK)
      check (h.payload_len <= LINK_MAX_PAYLOAD && h.type < WIRE_TYPE_END, "noise accepted");
    for (k = 0; k < ARRAY_SIZE (codecs); k++)
      codecs[k].dec (buf, len, &out);
    free (buf);
  }
  ok (tap_failed == 0, "noise: nothing unruly accepted, nothing read out of bounds");
}

static void
names (void)
{
  for (unsigned i = 0; i <= WIRE_NO_SPACE; i++)
    for (unsigned k = 0; k < i; k++)
      check (strcmp (wire_strerror ((enum wire_status) i), wire_strerror ((enum wire_status) k)) != 0,
             "statuses %u and %u are told apart", i, k);
  is_str (wire_strerror ((enum wire_status) 77), "unknown status", "an unknown status is shown as such");
  for (unsigned i = 0; i < WIRE_REFUSE_END; i++)
    for (unsigned k = 0; k < i; k++)
      check (strcmp (wire_refuse_name (i), wire_refuse_name (k)) != 0, "reasons %u and %u are told apart", i, k);
  for (unsigned i = 0; i < WIRE_E_END; i++)
    for (unsigned k = 0; k < i; k++)
      check (strcmp (wire_error_name (i), wire_error_name (k)) != 0, "errors %u and %u are told apart", i, k);
  is_str (wire_refuse_name (WIRE_REFUSE_END), "other", "a later release's reason");
  is_str (wire_error_name (WIRE_E_END), "other", "a later release's error");
  ok (tap_failed == 0, "every status, reason and error has a name of its own");
}

int
main (void)
{
  headers ();
  names ();
  rules ();
  payloads ();
  fields ();
  noise ();
  return tap_done ();
}
