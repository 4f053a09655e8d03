/* SPDX-License-Identifier: BSD-3-Clause */
/* Codec of the mirror link's frames.  Pure: buffers in, structures out and back; no state, any
 * thread.  Never reads beyond the length that it was given, and never writes a result that
 * breaks a rule of wire.h.
 */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/ident.h"
#include "common/util.h"
#include "common/wire.h"

const char *
wire_strerror (enum wire_status status)
{
  switch (status) {
  case WIRE_OK:
    return "fine";
  case WIRE_SHORT:
    return "truncated";
  case WIRE_BAD_MAGIC:
    return "not a frame of the mirror link";
  case WIRE_BAD_VERSION:
    return "unknown version of the frame header";
  case WIRE_BAD_CRC:
    return "damaged frame header (CRC)";
  case WIRE_BAD_TYPE:
    return "unknown type of frame";
  case WIRE_BAD_FLAGS:
    return "flags that this type of frame does not have";
  case WIRE_BAD_LENGTH:
    return "a length that is over its maximum or does not fit its type of frame";
  case WIRE_BAD_RANGE:
    return "a range beyond any store";
  case WIRE_BAD_FIELD:
    return "a field with a forbidden value";
  case WIRE_BAD_NAME:
    return "a name or text with forbidden bytes";
  case WIRE_NO_SPACE:
    return "the buffer is too small";
  }
  return "unknown status";
}

/* ---- the rules of each type --------------------------------------------------------------- */

enum payload_rule {
  PAYLOAD_NONE,
  PAYLOAD_DATA,    /* as long as the operation */
  PAYLOAD_CONTROL, /* 1 to WIRE_MAX_CONTROL bytes */
  PAYLOAD_DIGESTS, /* n x WIRE_DIGEST_LEN, n >= 1; with FAILED none */
  PAYLOAD_MAP,     /* WIRE_MAP_BYTES, or with ALL or END none */
};

struct type_rule {
  const char *name;
  uint16_t flags;    /* allowed */
  uint8_t payload;   /* enum payload_rule */
  bool range;        /* offset and length mean something, and length > 0; else both 0 */
  bool operation;    /* numbered from 1 */
  bool seq;          /* seq may be other than 0 */
  bool missing;      /* 'missing' may be other than 0 */
};

static const struct type_rule rules[WIRE_TYPE_END] = {
  [WIRE_HELLO] = { "HELLO", 0, PAYLOAD_CONTROL },
  [WIRE_HELLO_OK] = { "HELLO_OK", 0, PAYLOAD_CONTROL },
  [WIRE_REFUSE] = { "REFUSE", 0, PAYLOAD_CONTROL },
  [WIRE_WRITE] = { "WRITE", WIRE_F_FUA | WIRE_F_KEEP, PAYLOAD_DATA, true, true, true, true },
  [WIRE_ZERO] = { "ZERO", WIRE_F_FUA | WIRE_F_MAY_TRIM | WIRE_F_KEEP, PAYLOAD_NONE, true, true,
                  true, true },
  [WIRE_TRIM] = { "TRIM", WIRE_F_FUA, PAYLOAD_NONE, true, true, true, true },
  [WIRE_FLUSH] = { "FLUSH", 0, PAYLOAD_NONE, false, true, true },
  [WIRE_ACK] = { "ACK", 0, PAYLOAD_NONE, false, false, true },
  [WIRE_ERROR] = { "ERROR", 0, PAYLOAD_CONTROL, false, false, true },
  [WIRE_PING] = { "PING", 0, PAYLOAD_NONE, false, false, true },
  [WIRE_PONG] = { "PONG", 0, PAYLOAD_NONE, false, false, true },
  [WIRE_ENTER] = { "ENTER", 0, PAYLOAD_CONTROL, false, true, true },
  [WIRE_RESYNC_WRITE] = { "RESYNC_WRITE", WIRE_F_FUA, PAYLOAD_DATA, true, true, true, true },
  [WIRE_RESYNC_ZERO] = { "RESYNC_ZERO", WIRE_F_FUA | WIRE_F_MAY_TRIM, PAYLOAD_NONE, true, true,
                         true, true },
  [WIRE_RECORD] = { "RECORD", 0, PAYLOAD_CONTROL },
  [WIRE_DIGEST_REQ] = { "DIGEST_REQ", 0, PAYLOAD_CONTROL, true, false, true },
  [WIRE_DIGEST] = { "DIGEST", WIRE_F_FAILED, PAYLOAD_DIGESTS, true, false, true },
  [WIRE_BYE] = { "BYE", 0, PAYLOAD_NONE },
  [WIRE_MAP] = { "MAP", WIRE_F_ALL | WIRE_F_END, PAYLOAD_MAP, false, false, true, true },
  [WIRE_STABLE] = { "STABLE", WIRE_F_SETTLED | WIRE_F_CLEAR | WIRE_F_SYNC, PAYLOAD_NONE, false, false, true },
};

const char *
wire_type_name (uint8_t type)
{
  return type < WIRE_TYPE_END && rules[type].name ? rules[type].name : "type?";
}

bool
wire_type_is_operation (uint8_t type)
{
  return type < WIRE_TYPE_END && rules[type].operation;
}

static enum wire_status
header_check (const struct wire_header *h)
{
  const struct type_rule *rule;

  if (h->type >= WIRE_TYPE_END || !rules[h->type].name)
    return WIRE_BAD_TYPE;
  rule = &rules[h->type];
  if (h->flags & ~rule->flags)
    return WIRE_BAD_FLAGS;

  if (rule->operation ? h->seq == 0 : !rule->seq && h->seq != 0)
    return WIRE_BAD_FIELD;
  if (rule->missing ? h->missing >> CRG_MAX_SITES != 0 : h->missing != 0)
    return WIRE_BAD_FIELD;

  if (rule->range) {
    if (h->length == 0)
      return WIRE_BAD_LENGTH;
    if (h->offset > STORE_MAX_BYTES || h->length > STORE_MAX_BYTES - h->offset)
      return WIRE_BAD_RANGE;
  }
  else if (h->length != 0)
    return WIRE_BAD_LENGTH;
  else if (rule->payload == PAYLOAD_MAP ? h->offset > STORE_MAX_BYTES : h->offset != 0)
    return WIRE_BAD_FIELD;

  switch ((enum payload_rule) rule->payload) {
  case PAYLOAD_NONE:
    if (h->payload_len != 0)
      return WIRE_BAD_LENGTH;
    break;
  case PAYLOAD_DATA:
    if (h->payload_len != h->length || h->payload_len > LINK_MAX_PAYLOAD)
      return WIRE_BAD_LENGTH;
    break;
  case PAYLOAD_CONTROL:
    if (h->payload_len == 0 || h->payload_len > WIRE_MAX_CONTROL)
      return WIRE_BAD_LENGTH;
    break;
  case PAYLOAD_DIGESTS:
    if (h->flags & WIRE_F_FAILED ? h->payload_len != 0
                                 : h->payload_len == 0 || h->payload_len % WIRE_DIGEST_LEN != 0
                                       || h->payload_len > LINK_MAX_PAYLOAD)
      return WIRE_BAD_LENGTH;
    break;
  case PAYLOAD_MAP:
  default:
    if (h->payload_len != (h->flags & (WIRE_F_ALL | WIRE_F_END) ? 0 : WIRE_MAP_BYTES))
      return WIRE_BAD_LENGTH;
    break;
  }
  return WIRE_OK;
}

void
wire_encode_header (const struct wire_header *h, uint8_t buf[WIRE_HEADER_LEN])
{
  assert (header_check (h) == WIRE_OK);

  memset (buf, 0, WIRE_HEADER_LEN);
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
}

enum wire_status
wire_decode_header (const uint8_t *buf, size_t len, struct wire_header *h)
{
  struct wire_header out;
  enum wire_status status;

  /* What isn't ours at all is told from what is ours and damaged, even if it is short. */
  if (len < WIRE_HEADER_LEN)
    return len >= 4 && get_le32 (buf) != WIRE_MAGIC ? WIRE_BAD_MAGIC : WIRE_SHORT;
  if (get_le32 (buf) != WIRE_MAGIC)
    return WIRE_BAD_MAGIC;
  if (get_le32 (buf + 60) != crc32c (0, buf, 60))
    return WIRE_BAD_CRC;
  if (buf[4] != WIRE_VERSION)
    return WIRE_BAD_VERSION;
  if (!is_all_zero (buf + 44, 16))
    return WIRE_BAD_FIELD;

  out.type = buf[5];
  out.flags = get_le16 (buf + 6);
  out.tenure = get_le64 (buf + 8);
  out.seq = get_le64 (buf + 16);
  out.offset = get_le64 (buf + 24);
  out.length = get_le32 (buf + 32);
  out.payload_len = get_le32 (buf + 36);
  out.missing = get_le32 (buf + 40);
  status = header_check (&out);
  if (status == WIRE_OK)
    *h = out;
  return status;
}

/* ---- payloads ----------------------------------------------------------------------------- */

/* A buffer being written or read, with a sticky error: so a codec is a plain list of fields. */
struct cursor {
  uint8_t *out;      /* writing */
  const uint8_t *in; /* reading */
  size_t size, used;
  enum wire_status status;
};

static bool
take (struct cursor *c, size_t n)
{
  if (c->status != WIRE_OK)
    return false;
  if (n > c->size - c->used) {
    c->status = c->out ? WIRE_NO_SPACE : WIRE_SHORT;
    return false;
  }
  c->used += n;
  return true;
}

static void
put_bytes (struct cursor *c, const void *p, size_t n)
{
  if (take (c, n))
    memcpy (c->out + c->used - n, p, n);
}

static void
put_16 (struct cursor *c, uint16_t v)
{
  if (take (c, 2))
    put_le16 (c->out + c->used - 2, v);
}

static void
put_32 (struct cursor *c, uint32_t v)
{
  if (take (c, 4))
    put_le32 (c->out + c->used - 4, v);
}

static void
put_64 (struct cursor *c, uint64_t v)
{
  if (take (c, 8))
    put_le64 (c->out + c->used - 8, v);
}

static void
put_8 (struct cursor *c, uint8_t v)
{
  put_bytes (c, &v, 1);
}

/* Length in one byte, then the bytes; no maximum of ours is above 255. */
static void
put_text (struct cursor *c, const char *s, size_t max)
{
  size_t n = strnlen (s, max);

  put_8 (c, (uint8_t) n);
  put_bytes (c, s, n);
}

static void
put_name (struct cursor *c, const char *s)
{
  assert (ident_name_is_valid (s));
  put_text (c, s, CRG_NAME_MAX);
}

static size_t
put_end (const struct cursor *c)
{
  return c->status == WIRE_OK ? c->used : 0;
}

static void
get_bytes (struct cursor *c, void *p, size_t n)
{
  if (take (c, n))
    memcpy (p, c->in + c->used - n, n);
}

static uint8_t
get_8 (struct cursor *c)
{
  return take (c, 1) ? c->in[c->used - 1] : 0;
}

static uint16_t
get_16 (struct cursor *c)
{
  return take (c, 2) ? get_le16 (c->in + c->used - 2) : 0;
}

static uint32_t
get_32 (struct cursor *c)
{
  return take (c, 4) ? get_le32 (c->in + c->used - 4) : 0;
}

static uint64_t
get_64 (struct cursor *c)
{
  return take (c, 8) ? get_le64 (c->in + c->used - 8) : 0;
}

static void
get_name (struct cursor *c, char name[CRG_NAME_MAX + 1])
{
  size_t n = get_8 (c);

  memset (name, 0, CRG_NAME_MAX + 1);
  if (c->status == WIRE_OK && n > CRG_NAME_MAX)
    c->status = WIRE_BAD_NAME;
  get_bytes (c, name, n);
  if (c->status == WIRE_OK && (strlen (name) != n || !ident_name_is_valid (name)))
    c->status = WIRE_BAD_NAME;
}

/* A reason ends in logs and on terminals: what is no printable ASCII becomes '?'. */
static void
get_reason (struct cursor *c, char reason[CRG_REASON_MAX + 1])
{
  size_t i, n = get_8 (c);

  memset (reason, 0, CRG_REASON_MAX + 1);
  get_bytes (c, reason, n);
  if (c->status != WIRE_OK)
    return;
  for (i = 0; i < n; i++)
    if (reason[i] < 0x20 || reason[i] > 0x7e)
      reason[i] = '?';
}

static void
require (struct cursor *c, bool good)
{
  if (c->status == WIRE_OK && !good)
    c->status = WIRE_BAD_FIELD;
}

#define WRITER(buf, size) { .out = (buf), .size = (size) }
#define READER(buf, len)  { .in = (buf), .size = (len) }

/* The result is stored only if all of it was good. */
#define READ_END(c, m, out)                \
  do {                                     \
    if ((c).status == WIRE_OK)             \
      *(m) = (out);                        \
    return (c).status;                     \
  } while (0)

static bool
block_size_is_good (uint32_t size, uint32_t min, uint32_t max)
{
  return is_power_of_2 (size) && size >= min && size <= max;
}

size_t
wire_encode_hello (const struct wire_hello *m, uint8_t *buf, size_t size)
{
  struct cursor c = WRITER (buf, size);

  put_16 (&c, m->proto_min);
  put_16 (&c, m->proto_max);
  put_64 (&c, m->features);
  put_bytes (&c, m->cluster_id, CRG_ID_LEN);
  put_bytes (&c, m->lineage, CRG_ID_LEN);
  put_bytes (&c, m->crg_id, CRG_ID_LEN);
  put_bytes (&c, m->iasp_id, CRG_ID_LEN);
  put_bytes (&c, m->boot_id, CRG_ID_LEN);
  put_64 (&c, m->session);
  put_64 (&c, m->tenure);
  put_64 (&c, m->generation);
  put_64 (&c, m->size);
  put_32 (&c, m->block_size);
  put_32 (&c, m->dirty_block_size);
  put_8 (&c, m->site);
  put_8 (&c, m->peer_site);
  put_name (&c, m->crg);
  put_name (&c, m->iasp);
  put_name (&c, m->node);
  return put_end (&c);
}

enum wire_status
wire_decode_hello (const uint8_t *buf, size_t len, struct wire_hello *m)
{
  struct cursor c = READER (buf, len);
  struct wire_hello out = { 0 };

  out.proto_min = get_16 (&c);
  out.proto_max = get_16 (&c);
  out.features = get_64 (&c);
  get_bytes (&c, out.cluster_id, CRG_ID_LEN);
  get_bytes (&c, out.lineage, CRG_ID_LEN);
  get_bytes (&c, out.crg_id, CRG_ID_LEN);
  get_bytes (&c, out.iasp_id, CRG_ID_LEN);
  get_bytes (&c, out.boot_id, CRG_ID_LEN);
  out.session = get_64 (&c);
  out.tenure = get_64 (&c);
  out.generation = get_64 (&c);
  out.size = get_64 (&c);
  out.block_size = get_32 (&c);
  out.dirty_block_size = get_32 (&c);
  out.site = get_8 (&c);
  out.peer_site = get_8 (&c);
  get_name (&c, out.crg);
  get_name (&c, out.iasp);
  get_name (&c, out.node);
  require (&c, out.proto_min > 0 && out.proto_min <= out.proto_max);
  require (&c, out.size > 0 && out.size <= STORE_MAX_BYTES);
  require (&c, block_size_is_good (out.block_size, 1, META_BLOCK_SIZE));
  require (&c, block_size_is_good (out.dirty_block_size, DIRTY_BLOCK_SIZE_MIN,
                                   DIRTY_BLOCK_SIZE_MAX));
  require (&c, out.site < CRG_MAX_SITES && out.peer_site < CRG_MAX_SITES);
  READ_END (c, m, out);
}

size_t
wire_encode_hello_ok (const struct wire_hello_ok *m, uint8_t *buf, size_t size)
{
  struct cursor c = WRITER (buf, size);

  put_16 (&c, m->proto);
  put_64 (&c, m->features);
  put_16 (&c, m->flags);
  put_bytes (&c, m->boot_id, CRG_ID_LEN);
  put_64 (&c, m->session);
  put_64 (&c, m->tenure);
  put_64 (&c, m->generation);
  put_64 (&c, m->since);
  put_64 (&c, m->dirty_bytes);
  put_32 (&c, m->window_bytes);
  put_32 (&c, m->window_frames);
  put_name (&c, m->node);
  return put_end (&c);
}

enum wire_status
wire_decode_hello_ok (const uint8_t *buf, size_t len, struct wire_hello_ok *m)
{
  struct cursor c = READER (buf, len);
  struct wire_hello_ok out = { 0 };

  out.proto = get_16 (&c);
  out.features = get_64 (&c);
  out.flags = get_16 (&c);
  get_bytes (&c, out.boot_id, CRG_ID_LEN);
  out.session = get_64 (&c);
  out.tenure = get_64 (&c);
  out.generation = get_64 (&c);
  out.since = get_64 (&c);
  out.dirty_bytes = get_64 (&c);
  out.window_bytes = get_32 (&c);
  out.window_frames = get_32 (&c);
  get_name (&c, out.node);
  require (&c, out.proto > 0);
  if (c.status == WIRE_OK && out.flags & ~WIRE_OK_ALL_FLAGS)
    c.status = WIRE_BAD_FLAGS;
  /* A window too small for one frame would stop the link for good. */
  require (&c, out.window_bytes >= LINK_MAX_PAYLOAD && out.window_bytes <= LINK_WINDOW_BYTES);
  require (&c, out.window_frames > 0 && out.window_frames <= LINK_WINDOW_FRAMES);
  READ_END (c, m, out);
}

size_t
wire_encode_refuse (const struct wire_refuse *m, uint8_t *buf, size_t size)
{
  struct cursor c = WRITER (buf, size);

  put_32 (&c, m->code);
  put_64 (&c, m->tenure);
  put_text (&c, m->reason, CRG_REASON_MAX);
  return put_end (&c);
}

enum wire_status
wire_decode_refuse (const uint8_t *buf, size_t len, struct wire_refuse *m)
{
  struct cursor c = READER (buf, len);
  struct wire_refuse out = { 0 };

  out.code = get_32 (&c);
  if (out.code >= WIRE_REFUSE_END)
    out.code = WIRE_REFUSE_OTHER;
  out.tenure = get_64 (&c);
  get_reason (&c, out.reason);
  READ_END (c, m, out);
}

size_t
wire_encode_failure (const struct wire_failure *m, uint8_t *buf, size_t size)
{
  struct cursor c = WRITER (buf, size);

  put_32 (&c, m->code);
  put_text (&c, m->reason, CRG_REASON_MAX);
  return put_end (&c);
}

enum wire_status
wire_decode_failure (const uint8_t *buf, size_t len, struct wire_failure *m)
{
  struct cursor c = READER (buf, len);
  struct wire_failure out = { 0 };

  out.code = get_32 (&c);
  if (out.code >= WIRE_E_END)
    out.code = WIRE_E_OTHER;
  get_reason (&c, out.reason);
  READ_END (c, m, out);
}

size_t
wire_encode_record (const struct wire_record *m, uint8_t *buf, size_t size)
{
  struct cursor c = WRITER (buf, size);

  put_64 (&c, m->tenure);
  put_64 (&c, m->generation);
  put_64 (&c, m->since);
  put_64 (&c, m->loss);
  put_32 (&c, m->in_set);
  return put_end (&c);
}

enum wire_status
wire_decode_record (const uint8_t *buf, size_t len, struct wire_record *m)
{
  struct cursor c = READER (buf, len);
  struct wire_record out = { 0 };

  out.tenure = get_64 (&c);
  out.generation = get_64 (&c);
  out.since = get_64 (&c);
  out.loss = get_64 (&c);
  out.in_set = get_32 (&c);
  /* A copy can't have entered later than now (R2), and a set without anybody is none. */
  require (&c, out.since <= out.generation);
  require (&c, out.in_set != 0 && out.in_set >> CRG_MAX_SITES == 0);
  READ_END (c, m, out);
}

size_t
wire_encode_digest_req (const struct wire_digest_req *m, uint8_t *buf, size_t size)
{
  struct cursor c = WRITER (buf, size);

  put_32 (&c, m->algorithm);
  put_32 (&c, m->block_size);
  return put_end (&c);
}

enum wire_status
wire_decode_digest_req (const uint8_t *buf, size_t len, struct wire_digest_req *m)
{
  struct cursor c = READER (buf, len);
  struct wire_digest_req out = { 0 };

  out.algorithm = get_32 (&c);
  out.block_size = get_32 (&c);
  require (&c, out.algorithm == 1);
  require (&c, block_size_is_good (out.block_size, DIRTY_BLOCK_SIZE_MIN, DIRTY_BLOCK_SIZE_MAX));
  READ_END (c, m, out);
}

const char *
wire_refuse_name (uint32_t code)
{
  static const char *const names[WIRE_REFUSE_END] = {
    [WIRE_REFUSE_OTHER] = "other",
    [WIRE_REFUSE_VERSION] = "version",
    [WIRE_REFUSE_LINEAGE] = "lineage",
    [WIRE_REFUSE_IDENTITY] = "identity",
    [WIRE_REFUSE_NAME] = "name",
    [WIRE_REFUSE_TENURE] = "tenure",
    [WIRE_REFUSE_SIZE] = "size",
    [WIRE_REFUSE_BLOCK_SIZE] = "block-size",
    [WIRE_REFUSE_BUSY] = "busy",
    [WIRE_REFUSE_ROLE] = "role",
    [WIRE_REFUSE_FORK] = "fork",
    [WIRE_REFUSE_STORE] = "store",
    [WIRE_REFUSE_PROTOCOL] = "protocol",
  };

  return names[code < WIRE_REFUSE_END ? code : WIRE_REFUSE_OTHER];
}

const char *
wire_error_name (uint32_t code)
{
  static const char *const names[WIRE_E_END] = {
    [WIRE_E_OTHER] = "other",
    [WIRE_E_IO] = "io",
    [WIRE_E_NO_SPACE] = "no-space",
    [WIRE_E_TENURE] = "tenure",
    [WIRE_E_RANGE] = "range",
    [WIRE_E_ROLE] = "role",
    [WIRE_E_PROTOCOL] = "protocol",
  };

  return names[code < WIRE_E_END ? code : WIRE_E_OTHER];
}
