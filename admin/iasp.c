/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl iasp dump, iasp check: what the metadata of a store says, offline or beside the plugin
 * that has it open.  Opens the store for reading only, takes no lock and asks no daemon; one
 * thread.  It must never write to a store.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "admin/cli.h"
#include "common/claim.h"
#include "common/ident.h"
#include "common/metafile.h"
#include "common/super.h"
#include "common/util-posix.h"

const char *const iasp_verbs[] = { "create", "dump", "check", NULL };

/* A plugin that writes a slot while we read it makes that slot look torn: what is not fine is
 * read again, so often and so far apart.  One write of 4096 bytes takes less. */
#define READ_TRIES 5
#define READ_PAUSE_MS 20

struct view {
  struct cli *cli;
  const char *path;
  const char *meta_path; /* NULL: the metadata is at the store's end */
  struct metafile meta;
  bool is_block;
  bool is_open; /* a plugin holds the lock of S1 */
  uint64_t own_bytes;
  uint64_t store_bytes; /* with the metadata's (metafile_total) */
  uint64_t slot_offset[2];
  enum super_status status; /* of the choice */
  struct super_choice choice;
  struct superblock chosen;  /* if status is SUPER_OK */
  struct superblock slot[2]; /* each that is whole */
  bool has_layout;
  struct meta_layout layout;
  bool knows_written;
  uint64_t written_bytes; /* of the data */
  unsigned n_claims;      /* S1: who is opening it, or was when it died */
  struct claim_block claims[META_CLAIMS];
  int code; /* the exit code */
  char message[256];
};

/* ---- reading ---------------------------------------------------------------------------- */

static int
open_store (struct view *v)
{
  /* Non-blocking: a FIFO is refused below, not waited for. */
  int fd = open (v->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  char err[2 * CRG_PATH_MAX];
  uint64_t bytes = 0;
  struct stat st;
  int r;

  if (fd < 0)
    return cli_error (v->cli, errno == ENOENT || errno == ENOTDIR ? CRG_EXIT_NO_OBJECT : CRG_EXIT_ERROR,
                      "cannot open the store %s: %s", v->path, strerror (errno));
  if (fstat (fd, &st) < 0)
    r = cli_error (v->cli, CRG_EXIT_ERROR, "cannot ask what %s is: %s", v->path, strerror (errno));
  else if (S_ISBLK (st.st_mode) && ioctl (fd, BLKGETSIZE64, &bytes) < 0)
    r = cli_error (v->cli, CRG_EXIT_ERROR, "cannot ask the block device %s for its size: %s", v->path,
                   strerror (errno));
  else if (!S_ISBLK (st.st_mode) && !S_ISREG (st.st_mode))
    r = cli_error (v->cli, CRG_EXIT_USAGE, "%s is neither a regular file nor a block device; name the "
                   "store of an IASP", v->path);
  else {
    v->is_block = S_ISBLK (st.st_mode);
    v->own_bytes = v->is_block ? bytes : (uint64_t) st.st_size;
    r = metafile_open (&v->meta, v->meta_path, O_RDONLY, fd, v->own_bytes, err, sizeof err);
    v->store_bytes = metafile_total (&v->meta, v->own_bytes);
    if (r == 0)
      return fd;
    r = cli_error (v->cli, r == -ENOENT || r == -ENOTDIR ? CRG_EXIT_NO_OBJECT : CRG_EXIT_ERROR, "%s", err);
  }
  close (fd);
  return -r;
}

static int
pread_all (const struct view *v, int store_fd, uint8_t *buf, size_t len, uint64_t offset)
{
  const int fd = metafile_at (&v->meta, store_fd, &offset);
  size_t at = 0;
  ssize_t n;

  while (at < len) {
    n = pread (fd, buf + at, len - at, (off_t) (offset + at));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : -EIO;
    at += (size_t) n;
  }
  return 0;
}

static void
read_lock (struct view *v, int fd)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  /* Only asks who would be in the way. */
  v->is_open = fcntl (fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
  fl.l_type = F_WRLCK;
  if (!v->is_open && v->meta.fd >= 0)
    v->is_open = fcntl (v->meta.fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

/* Reads both slots until they are what a writer leaves, or for good. */
static int
read_slots (struct view *v, int fd)
{
  static _Alignas (META_BLOCK_SIZE) uint8_t blocks[2][META_BLOCK_SIZE];
  const struct timespec pause = { 0, READ_PAUSE_MS * 1000000L };
  unsigned i, try;
  int r;

  for (try = 0; try < READ_TRIES; try++) {
    if (try > 0)
      nanosleep (&pause, NULL);
    read_lock (v, fd);
    for (i = 0; i < 2; i++) {
      r = pread_all (v, fd, blocks[i], META_BLOCK_SIZE, v->slot_offset[i]);
      if (r < 0)
        return cli_error (v->cli, CRG_EXIT_ERROR, "cannot read superblock %u of %s, at byte %" PRIu64
                          ": %s", i, v->path, v->slot_offset[i], strerror (-r));
    }
    v->status = super_choose (blocks[0], blocks[1], &v->chosen, &v->choice);
    if (!v->is_open || (v->status == SUPER_OK && !v->choice.damaged))
      break;
  }
  for (i = 0; i < 2; i++)
    if (v->choice.status[i] == SUPER_OK)
      super_decode (blocks[i], i, &v->slot[i]);
  return CRG_EXIT_FINE;
}

/* ---- judging ---------------------------------------------------------------------------- */

/* Why that slot, and not the other. */
static const char *
choice_reason (const struct view *v)
{
  unsigned other = v->choice.slot == 0;

  if (v->choice.status[other] == SUPER_OK)
    return "both are whole, and it has the higher sequence";
  if (!v->choice.damaged)
    return "the other was not written yet: the store was just formatted";
  return "the other one can't be used";
}

UTIL_PRINTF (3, 4)
static void
judge_as (struct view *v, int code, const char *fmt, ...)
{
  va_list ap;

  v->code = code;
  va_start (ap, fmt);
  vsnprintf (v->message, sizeof v->message, fmt, ap);
  va_end (ap);
}

static void
judge (struct view *v)
{
  const char *why = v->status == SUPER_OK ? metafile_refuses (&v->meta, &v->chosen) : NULL;
  unsigned other = v->choice.slot == 0;
  uint64_t expected[2];

  if (v->status == SUPER_EMPTY && v->meta.fd >= 0)
    judge_as (v, CRG_EXIT_NO_OBJECT, "no superblock in %.150s: this is no metadata of a store, or its end was cut or moved",
              v->meta_path);
  else if (v->status == SUPER_EMPTY)
    judge_as (v, CRG_EXIT_NO_OBJECT, "no superblock: this is no store of an IASP, or its end was cut or moved");
  else if (v->status == SUPER_CONFLICT)
    judge_as (v, CRG_EXIT_ERROR, "the two superblocks contradict each other; the store is refused");
  else if (v->status != SUPER_OK)
    judge_as (v, CRG_EXIT_ERROR, "slot 0: %s; slot 1: %s; the store is refused",
              super_strerror (v->choice.status[0]), super_strerror (v->choice.status[1]));
  else if (why)
    judge_as (v, CRG_EXIT_ERROR, "%s", why);
  else if (meta_slot_offsets (v->chosen.store_bytes, expected) < 0 || expected[0] != v->slot_offset[0])
    judge_as (v, CRG_EXIT_ERROR, "it was formatted with %" PRIu64 " bytes and has %" PRIu64
              " now: give it its old size", v->chosen.store_bytes, v->store_bytes);
  else if (v->choice.damaged && v->choice.status[other] == SUPER_OK)
    judge_as (v, CRG_EXIT_DEGRADED, "slot %u is older than its writer leaves it (sequence %" PRIu64
              " beside %" PRIu64 "); slot %d is used", other, v->slot[other].sequence,
              v->chosen.sequence, v->choice.slot);
  else if (v->choice.damaged)
    judge_as (v, CRG_EXIT_DEGRADED, "slot %u: %s; slot %d is used, and the next change of role writes "
              "both", other, super_strerror (v->choice.status[other]), v->choice.slot);
  else
    judge_as (v, CRG_EXIT_FINE, "fine");
}

/* ---- maps ------------------------------------------------------------------------------- */

static uint64_t
count_bits (const uint8_t *map, uint64_t n)
{
  uint64_t set = 0;

  for (uint64_t i = 0; i < n; i++)
    set += map[i / 8] >> (i % 8) & 1;
  return set;
}

/* Adds to *n_damaged those of the first n blocks of a map that are not what their place says; to *set, unless NULL,
 * how many of its n_bits are set, or count as such. */
static int
look_at_map (struct view *v, int fd, uint8_t kind, unsigned site, uint64_t offset, uint64_t n, uint64_t *n_damaged,
             uint64_t n_bits, uint64_t *set)
{
  static _Alignas (META_BLOCK_SIZE) uint8_t blocks[64][META_BLOCK_SIZE];
  const struct timespec pause = { 0, READ_PAUSE_MS * 1000000L };
  struct meta_block_id id = { .kind = kind, .site = (uint8_t) site };
  uint64_t sequence;
  int r = 0;

  memcpy (id.store_id, v->chosen.store_id, CRG_ID_LEN);
  while (id.index < n) {
    const uint64_t at = offset + id.index * META_BLOCK_SIZE;
    const unsigned count = (unsigned) MIN (n - id.index, (uint64_t) ARRAY_SIZE (blocks));

    r = pread_all (v, fd, blocks[0], (size_t) count * META_BLOCK_SIZE, at);
    for (unsigned k = 0; k < count && r == 0; k++, id.index++) {
      bool whole = false;

      /* One that a plugin writes just now is read again. */
      for (unsigned try = 0; r == 0 && !whole && try < (v->is_open ? READ_TRIES : 1); try++) {
        if (try > 0) {
          nanosleep (&pause, NULL);
          r = pread_all (v, fd, blocks[k], META_BLOCK_SIZE, at + k * META_BLOCK_SIZE);
        }
        whole = r == 0 && meta_block_check_sealed (blocks[k], &id, v->chosen.sealed, &sequence) != -EBADMSG;
      }
      *n_damaged += !whole;
      if (set) {
        const uint64_t here = MIN ((uint64_t) META_BLOCK_BITS, n_bits - id.index * META_BLOCK_BITS);

        *set += whole ? count_bits (blocks[k] + META_BLOCK_HEADER, here) : here;
      }
    }
    if (r < 0)
      return cli_error (v->cli, CRG_EXIT_ERROR, "cannot read the maps of %s, at byte %" PRIu64 ": %s", v->path, at,
                        strerror (-r));
  }
  return CRG_EXIT_FINE;
}

/* The maps that were written as a whole; another was never in use. */
static int
look_at_maps (struct view *v, int fd)
{
  const struct meta_layout *l = &v->layout;
  const uint64_t hot = div_round_up (div_round_up (v->chosen.data_bytes, HOT_REGION_SIZE_MIN), META_BLOCK_BITS);
  const uint64_t n_bits = div_round_up (v->chosen.data_bytes, v->chosen.dirty_block_size);
  const uint64_t bits = div_round_up (n_bits, META_BLOCK_BITS);
  uint64_t damaged = 0, set = 0;
  int r = CRG_EXIT_FINE;

  for (unsigned copy = 0; copy < 2 && r == CRG_EXIT_FINE && (v->chosen.sealed & SUPER_SEALED_HOT); copy++)
    r = look_at_map (v, fd, META_HOT, 0, l->hot.offset + copy * (l->hot.blocks / 2) * META_BLOCK_SIZE, hot, &damaged, 0,
                     NULL);
  for (unsigned s = 0; s < CRG_MAX_SITES && r == CRG_EXIT_FINE; s++)
    if (v->chosen.sealed & SUPER_SEALED_BITMAP (s))
      r = look_at_map (v, fd, META_BITMAP, s, l->bitmap[s].offset, bits, &damaged, 0, NULL);
  if (r == CRG_EXIT_FINE && (v->chosen.flags & SUPER_F_WRITTEN)) {
    if (v->chosen.sealed & SUPER_SEALED_WRITTEN)
      r = look_at_map (v, fd, META_WRITTEN, 0, l->written.offset, bits, &damaged, n_bits, &set);
    v->knows_written = true;
    v->written_bytes = MIN (set * v->chosen.dirty_block_size, v->chosen.data_bytes);
  }
  if (r == CRG_EXIT_FINE && damaged > 0 && v->code == CRG_EXIT_FINE)
    judge_as (v, CRG_EXIT_DEGRADED, "%" PRIu64 " damaged block%s in its maps: what they cover counts as different, and is "
              "copied", damaged, damaged == 1 ? "" : "s");
  return r;
}

static int
look_at_claims (struct view *v, int fd)
{
  static _Alignas (META_BLOCK_SIZE) uint8_t blocks[META_CLAIMS][META_BLOCK_SIZE];
  int r = pread_all (v, fd, blocks[0], sizeof blocks, v->layout.claims.offset);

  if (r < 0)
    return cli_error (v->cli, CRG_EXIT_ERROR, "cannot read the claims of %s, at byte %" PRIu64 ": %s", v->path,
                      v->layout.claims.offset, strerror (-r));
  for (unsigned i = 0; i < META_CLAIMS; i++)
    v->n_claims += claim_decode (blocks[i], i, v->chosen.store_id, &v->claims[v->n_claims]);
  return CRG_EXIT_FINE;
}

/* Fills *v, or prints an error.  Returns EXIT_FINE if there is something to show. */
static int
look (struct view *v)
{
  CLEANUP_CLOSE int fd = open_store (v);
  int r;

  if (fd < 0)
    return -fd;
  read_lock (v, fd);
  r = meta_slot_offsets (v->store_bytes, v->slot_offset);
  if (r < 0)
    return cli_error (v->cli, CRG_EXIT_NO_OBJECT, "%s has %" PRIu64 " bytes, and no store is so %s",
                      v->path, v->store_bytes, r == -ENOSPC ? "small" : "large");
  r = read_slots (v, fd);
  if (r != CRG_EXIT_FINE)
    return r;
  if (v->status == SUPER_OK && !metafile_refuses (&v->meta, &v->chosen))
    v->has_layout = meta_layout (v->chosen.store_bytes, v->chosen.dirty_block_size, &v->layout) == 0;
  if (v->meta.fd >= 0)
    v->layout.data_bytes = v->meta.from;
  judge (v);
  r = v->has_layout ? look_at_claims (v, fd) : CRG_EXIT_FINE;
  return r == CRG_EXIT_FINE && v->has_layout && v->code == CRG_EXIT_FINE ? look_at_maps (v, fd) : r;
}

/* ---- dump ------------------------------------------------------------------------------- */

static const struct {
  uint16_t flag;
  const char *word;
} flag_words[] = {
  { SUPER_F_OPEN, "open" },     { SUPER_F_CLEAN, "clean" },   { SUPER_F_UNUSABLE, "unusable" },
  { SUPER_F_FORK, "fork" },     { SUPER_F_DIRECT, "direct" }, { SUPER_F_FILLING, "filling" },
  { SUPER_F_RESTARTED, "restarted" }, { SUPER_F_TRACKED, "tracked" },
  { SUPER_F_EXTERNAL, "external" }, { SUPER_F_WRITTEN, "written" },
};

static json_t *
flags_json (uint16_t flags)
{
  json_t *array = json_array ();
  size_t i;

  for (i = 0; i < ARRAY_SIZE (flag_words); i++)
    if (flags & flag_words[i].flag)
      json_array_append_new (array, json_string (flag_words[i].word));
  return array;
}

static json_t *
sealed_json (uint32_t sealed)
{
  json_t *array = json_array ();
  char name[16];

  if (sealed & SUPER_SEALED_HOT)
    json_array_append_new (array, json_string ("hot"));
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    if (sealed & SUPER_SEALED_BITMAP (s)) {
      snprintf (name, sizeof name, "bitmap-%u", s);
      json_array_append_new (array, json_string (name));
    }
  if (sealed & SUPER_SEALED_WRITTEN)
    json_array_append_new (array, json_string ("written"));
  return array;
}

static json_t *
id_json (const uint8_t id[CRG_ID_LEN])
{
  char text[IDENT_ID_TEXT_LEN];

  ident_id_to_text (id, text);
  return json_string (text);
}

static void
put (json_t *object, const char *name, json_t *value)
{
  json_object_set_new (object, name, value);
}

static void
put_u64 (json_t *object, const char *name, uint64_t value)
{
  put (object, name, json_integer ((json_int_t) value));
}

/* Every field of a superblock, in the order and with the names of nbd-crg-store(5). */
static json_t *
super_json (const struct superblock *sb)
{
  json_t *o = json_object (), *in_set = json_array ();
  char session[17];
  unsigned s;

  for (s = 0; s < CRG_MAX_SITES; s++)
    if (sb->in_set >> s & 1)
      json_array_append_new (in_set, json_integer (s));
  snprintf (session, sizeof session, "%016" PRIx64, sb->open_session);
  put_u64 (o, "major", SUPER_MAJOR);
  put_u64 (o, "minor", sb->minor);
  put_u64 (o, "sequence", sb->sequence);
  put (o, "crg", json_string (sb->crg));
  put (o, "iasp", json_string (sb->iasp));
  put (o, "site_name", json_string (sb->site_name));
  put_u64 (o, "site", sb->site);
  put (o, "role", json_string (super_role_name (sb->role)));
  put (o, "flags", flags_json (sb->flags));
  put_u64 (o, "tenure", sb->tenure);
  put_u64 (o, "generation", sb->generation);
  put_u64 (o, "since", sb->since);
  put (o, "in_set", in_set);
  put_u64 (o, "loss", sb->loss);
  put (o, "sealed", sealed_json (sb->sealed));
  put_u64 (o, "resync_rate", sb->resync_rate);
  put_u64 (o, "store_bytes", sb->store_bytes);
  put_u64 (o, "data_bytes", sb->data_bytes);
  put_u64 (o, "block_size", sb->block_size);
  put_u64 (o, "dirty_block_size", sb->dirty_block_size);
  put (o, "store_id", id_json (sb->store_id));
  put (o, "cluster_id", id_json (sb->cluster_id));
  put (o, "crg_id", id_json (sb->crg_id));
  put (o, "iasp_id", id_json (sb->iasp_id));
  put (o, "lineage", id_json (sb->lineage));
  put (o, "open_node", json_string (sb->open_node));
  put (o, "open_boot_id", id_json (sb->open_boot_id));
  put (o, "open_session", json_string (session));
  if (sb->flags & SUPER_F_EXTERNAL) {
    put_u64 (o, "meta_bytes", sb->meta_bytes);
    put (o, "data_identity", json_string (sb->data_identity));
    put (o, "meta_identity", json_string (sb->meta_identity));
  }
  return o;
}

static void
add_area (json_t *areas, const char *name, uint64_t offset, uint64_t bytes)
{
  json_t *o = json_object ();

  put (o, "name", json_string (name));
  put_u64 (o, "offset", offset);
  put_u64 (o, "bytes", bytes);
  json_array_append_new (areas, o);
}

static json_t *
layout_json (const struct view *v)
{
  const struct meta_layout *l = &v->layout;
  json_t *o = json_object (), *areas = json_array ();
  uint64_t overhead = l->store_bytes - l->data_bytes;
  char name[16];
  unsigned i;

  add_area (areas, "data", 0, l->data_bytes);
  add_area (areas, "written", l->written.offset, l->written.blocks * META_BLOCK_SIZE);
  add_area (areas, "hot", l->hot.offset, l->hot.blocks * META_BLOCK_SIZE);
  add_area (areas, "claims", l->claims.offset, l->claims.blocks * META_BLOCK_SIZE);
  for (i = 0; i < CRG_MAX_SITES; i++) {
    snprintf (name, sizeof name, "bitmap-%u", i);
    add_area (areas, name, l->bitmap[i].offset, l->bitmap[i].blocks * META_BLOCK_SIZE);
  }
  for (i = 0; i < 2; i++) {
    snprintf (name, sizeof name, "slot-%u", i);
    add_area (areas, name, l->slot_offset[i], META_BLOCK_SIZE);
  }
  put (o, "areas", areas);
  put_u64 (o, "overhead_bytes", overhead);
  put (o, "overhead_percent", json_real (100.0 * (double) overhead / (double) l->store_bytes));
  return o;
}

static json_t *
claims_json (const struct view *v)
{
  json_t *array = json_array (), *o;
  char session[17];

  for (unsigned i = 0; i < v->n_claims; i++) {
    o = json_object ();
    snprintf (session, sizeof session, "%016" PRIx64, v->claims[i].session);
    put (o, "node", json_string (v->claims[i].node));
    put (o, "boot_id", id_json (v->claims[i].boot_id));
    put (o, "session", json_string (session));
    json_array_append_new (array, o);
  }
  return array;
}

/* All that dump shows; the text is made of it too, so that both say the same. */
static json_t *
view_json (const struct view *v)
{
  json_t *o = json_object (), *slots = json_array (), *slot;
  unsigned i;

  put (o, "store", json_string (v->path));
  put (o, "kind", json_string (v->is_block ? "block device" : "file"));
  put_u64 (o, "bytes", v->own_bytes);
  put (o, "meta", v->meta.fd >= 0 ? json_string (v->meta_path) : json_null ());
  put (o, "open", json_boolean (v->is_open));
  put_u64 (o, "code", (uint64_t) v->code);
  put (o, "verdict", json_string (v->message));
  put (o, "chosen", v->status == SUPER_OK ? json_integer (v->choice.slot) : json_null ());
  put (o, "reason", v->status == SUPER_OK ? json_string (choice_reason (v)) : json_null ());
  for (i = 0; i < 2; i++) {
    slot = v->choice.status[i] == SUPER_OK ? super_json (&v->slot[i]) : json_object ();
    put_u64 (slot, "slot", i);
    put_u64 (slot, "offset", v->slot_offset[i]);
    put (slot, "status", json_string (super_strerror (v->choice.status[i])));
    json_array_append_new (slots, slot);
  }
  put (o, "written_bytes", v->knows_written ? json_integer ((json_int_t) v->written_bytes) : json_null ());
  put (o, "claims", claims_json (v));
  put (o, "slots", slots);
  put (o, "layout", v->has_layout ? layout_json (v) : json_null ());
  return o;
}

static void
print_value (const json_t *value)
{
  const json_t *item;
  size_t i;

  if (json_is_string (value))
    printf ("%s", *json_string_value (value) ? json_string_value (value) : "-");
  else if (json_is_integer (value))
    printf ("%" PRIu64, (uint64_t) json_integer_value (value));
  else {
    if (json_array_size (value) == 0)
      printf ("-");
    json_array_foreach (value, i, item) {
      printf ("%s", i > 0 ? " " : "");
      print_value (item);
    }
  }
}

static void
print_text (const struct view *v, json_t *view)
{
  json_t *slot, *value, *area, *layout = json_object_get (view, "layout");
  const char *name;
  size_t i;

  printf ("store %s: %s of %" PRIu64 " bytes, %s\n", v->path, v->is_block ? "block device" : "file",
          v->own_bytes, v->is_open ? "open in a plugin now" : "open in no plugin");
  if (v->meta.fd >= 0)
    printf ("metadata on %s, whose byte 0 counts as %" PRIu64 "\n", v->meta_path, v->meta.from);
  printf ("verdict: %s\n", v->message);
  if (v->status == SUPER_OK)
    printf ("chosen: slot %d: %s\n", v->choice.slot, choice_reason (v));
  if (v->knows_written)
    printf ("written: %" PRIu64 " of %" PRIu64 " bytes of data\n", v->written_bytes, v->chosen.data_bytes);
  for (i = 0; i < v->n_claims; i++)
    printf ("claim: node %s is opening it, or was when it died\n", v->claims[i].node);
  json_array_foreach (json_object_get (view, "slots"), i, slot) {
    printf ("\nslot %zu at %" PRIu64 ": %s\n", i, v->slot_offset[i],
            json_string_value (json_object_get (slot, "status")));
    json_object_foreach (slot, name, value) {
      if (strcmp (name, "slot") == 0 || strcmp (name, "offset") == 0 || strcmp (name, "status") == 0)
        continue;
      printf ("  %-16s ", name);
      print_value (value);
      putchar ('\n');
    }
  }
  if (!v->has_layout)
    return;
  printf ("\n%-10s %20s %20s\n", "area", "offset", "bytes");
  json_array_foreach (json_object_get (layout, "areas"), i, area)
    printf ("%-10s %20" PRIu64 " %20" PRIu64 "\n", json_string_value (json_object_get (area, "name")),
            (uint64_t) json_integer_value (json_object_get (area, "offset")),
            (uint64_t) json_integer_value (json_object_get (area, "bytes")));
  printf ("overhead: %" PRIu64 " bytes, %.4f %%\n",
          (uint64_t) json_integer_value (json_object_get (layout, "overhead_bytes")),
          json_real_value (json_object_get (layout, "overhead_percent")));
}

static int
dump (struct view *v)
{
  json_t *view;
  char *text;
  int rc = look (v);

  if (rc != CRG_EXIT_FINE)
    return rc;
  view = view_json (v);
  if (v->cli->given[OPT_JSON]) {
    text = json_dumps (view, JSON_INDENT (2) | JSON_REAL_PRECISION (6));
    if (!text) {
      json_decref (view);
      return cli_error (v->cli, CRG_EXIT_ERROR, "cannot print %s as JSON (is its path UTF-8?)", v->path);
    }
    puts (text);
    free (text);
  }
  else
    print_text (v, view);
  json_decref (view);
  return v->code;
}

static int
check (struct view *v)
{
  int rc = look (v);

  if (rc != CRG_EXIT_FINE)
    return rc;
  printf ("%s: %s%s", v->path, v->message, v->is_open ? " (open in a plugin now)" : "");
  if (v->knows_written)
    printf ("; %" PRIu64 " of %" PRIu64 " bytes were ever written", v->written_bytes, v->chosen.data_bytes);
  for (unsigned i = 0; i < v->n_claims; i++)
    printf ("; node %s is opening it, or was when it died", v->claims[i].node);
  putchar ('\n');
  return v->code;
}

int
iasp_command (struct cli *cli)
{
  struct view v = { .cli = cli, .path = cli->words[1] };

  if (strlen (v.path) > CRG_PATH_MAX)
    return cli_error (cli, CRG_EXIT_USAGE, "the path of the store is longer than %d bytes", CRG_PATH_MAX);
  metafile_none (&v.meta);
  v.meta_path = cli->given[OPT_META] ? cli->value[OPT_META] : NULL;
  if (cli->n_metas > 1 || (v.meta_path && (!v.meta_path[0] || strlen (v.meta_path) > CRG_PATH_MAX)))
    return cli_error (cli, CRG_EXIT_USAGE, "--meta names one file or device, with at most %d bytes", CRG_PATH_MAX);
  if (strcmp (cli->words[0], "create") == 0)
    return iasp_create (cli, v.path, v.meta_path);
  if (cli->given[OPT_FORCE] || cli->given[OPT_SIZE] || cli->given[OPT_BLOCK] || cli->given[OPT_KEEP_DATA]
      || cli->given[OPT_ZERO])
    return cli_error (cli, CRG_EXIT_USAGE, "--force, --size, --block-size, --keep-data and --zero go with 'iasp create' only");
  if (strcmp (cli->words[0], "dump") == 0)
    return dump (&v);
  if (strcmp (cli->words[0], "check") != 0)
    return cli_error (cli, CRG_EXIT_USAGE, "there is no 'iasp %s'; say 'iasp create', 'iasp dump' or 'iasp check'",
                      cli->words[0]);
  if (cli->given[OPT_JSON])
    return cli_error (cli, CRG_EXIT_USAGE, "--json is not an option of 'iasp check'; use 'iasp dump --json'");
  return check (&v);
}
