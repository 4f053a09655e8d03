/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads the plugin's keys.  One table names them; help, duplicates and the check of what
 * belongs together come from it.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ident.h"
#include "common/util.h"
#include "plugin/params.h"

enum key {
  K_NAME, K_STORE, K_META, K_DIRECT, K_ROLE, K_CONTROL, K_NODE, K_NODE_ID, K_SITE, K_CRG, K_CLUSTER_ID,
  K_CRG_ID, K_IASP_ID, K_LINEAGE, K_SIZE, K_DIRTY_BLOCK, K_LISTEN, K_TLS_CA, K_TLS_CERT, K_TLS_KEY,
  K_SUSPEND_TIMEOUT_MS, K_NO_QUORUM_TIMEOUT_MS, K_STORE_ERROR, K_RESYNC_TARGET_S, K_RESYNC_SHARE,
  K_SNAPSHOT, K_SNAPSHOT_HOOK, K_RESERVATION,
#ifdef CRG_TEST
  K_FAULT_NO_TRACKING,
  K_FAULT_WRITTEN,
#endif
  K_END
};

static const char *const keys[] = {
  [K_NAME] = "name",
  [K_STORE] = "store",
  [K_META] = "meta",
  [K_DIRECT] = "direct",
  [K_ROLE] = "role",
  [K_CONTROL] = "control",
  [K_NODE] = "node",
  [K_NODE_ID] = "node-id",
  [K_SITE] = "site",
  [K_CRG] = "crg",
  [K_CLUSTER_ID] = "cluster-id",
  [K_CRG_ID] = "crg-id",
  [K_IASP_ID] = "iasp-id",
  [K_LINEAGE] = "lineage",
  [K_SIZE] = "size",
  [K_DIRTY_BLOCK] = "dirty-block",
  [K_LISTEN] = "listen",
  [K_TLS_CA] = "tls-ca",
  [K_TLS_CERT] = "tls-cert",
  [K_TLS_KEY] = "tls-key",
  [K_SUSPEND_TIMEOUT_MS] = "suspend-timeout-ms",
  [K_NO_QUORUM_TIMEOUT_MS] = "no-quorum-timeout-ms",
  [K_STORE_ERROR] = "store-error",
  [K_RESYNC_TARGET_S] = "resync-target-s",
  [K_RESYNC_SHARE] = "resync-share",
  [K_SNAPSHOT] = "snapshot-before-resync",
  [K_SNAPSHOT_HOOK] = "snapshot-hook",
  [K_RESERVATION] = "persistent-reservation",
#ifdef CRG_TEST
  [K_FAULT_NO_TRACKING] = "fault-no-tracking",
  [K_FAULT_WRITTEN] = "fault-written",
#endif
};

#define BIT(k)      (UINT32_C (1) << (k))
#define CONTROL_ALL                                                                               \
  (BIT (K_NODE) | BIT (K_SITE) | BIT (K_CRG) | BIT (K_CLUSTER_ID) | BIT (K_CRG_ID)                \
   | BIT (K_IASP_ID) | BIT (K_LINEAGE) | BIT (K_SIZE) | BIT (K_DIRTY_BLOCK))
#define LINK_ALL    (BIT (K_TLS_CA) | BIT (K_TLS_CERT) | BIT (K_TLS_KEY))
#define CONTROL_ANY                                                                               \
  (CONTROL_ALL | LINK_ALL | BIT (K_META) | BIT (K_NODE_ID) | BIT (K_LISTEN) | BIT (K_SUSPEND_TIMEOUT_MS)          \
   | BIT (K_NO_QUORUM_TIMEOUT_MS) | BIT (K_STORE_ERROR) | BIT (K_RESYNC_TARGET_S) | BIT (K_RESYNC_SHARE) \
   | BIT (K_SNAPSHOT) | BIT (K_SNAPSHOT_HOOK) | BIT (K_RESERVATION))

const char *
params_key (unsigned i)
{
  return i < K_END ? keys[i] : NULL;
}

const char params_help[]
  = "name=<NAME>         (required) Name of the IASP.\n"
    "store=<PATH>        (required) Regular file or block device that holds the data.\n"
    "meta=<PATH>         With control=: file or device with the store's metadata [its end].\n"
    "direct=auto|on|off  Direct I/O: if the store takes it (default), or refuse, or never.\n"
    "role=production     Export the whole store by hand, unmirrored.\n"
    "control=<SOCKET>    Listen here for a controller, which gives the role.\n"
    "node= site= crg= cluster-id= crg-id= iasp-id= lineage= size= dirty-block=\n"
    "                    (required with control=) Who we are; see nbdkit-iasp-plugin(1).\n"
    "node-id=<N>         This node's number, by which it claims the store before it opens it.\n"
    "listen=<ADDR>[,<ADDR>]:<PORT>  Mirror port.\n"
    "tls-ca= tls-cert= tls-key=     (required with listen=) Files of the mirror link's TLS.\n"
    "suspend-timeout-ms=<N>    A copy that doesn't answer for so long is given up [10000].\n"
    "no-quorum-timeout-ms=<N>  I/O without a lease fails after so long [0: never].\n"
    "store-error=fail-over|return  An error of production's store: held until another copy\n"
    "                          serves (default), or returned to the client.\n"
    "resync-target-s=<N>       How long the resync after a crash may take, about [30].\n"
    "resync-share=<PERCENT>    Of the time, for a resync while clients work [15].\n"
    "snapshot-before-resync=on|off  Keep what a copy holds before it is resynchronised [off] ...\n"
    "snapshot-hook=<PATH>      ... with this program, where the file system can't reflink.\n"
    "persistent-reservation=on|off  Reserve the store's device while it is open (experimental) [off].\n"
  ;

void
params_init (struct params *p)
{
  memset (p, 0, sizeof *p);
  p->suspend_timeout_ms = PARAMS_SUSPEND_TIMEOUT_MS;
  p->dirty_block = DIRTY_BLOCK_SIZE;
  p->resync_target_s = PARAMS_RESYNC_TARGET_S;
  p->resync_share = RESYNC_SHARE;
}

static int
set_text (char *to, size_t size, const char *key, const char *value, char *err, size_t errlen)
{
  if (value[0] == '\0' || strlen (value) >= size) {
    snprintf (err, errlen, "%s=: it must have 1 to %zu bytes", key, size - 1);
    return -EINVAL;
  }
  memcpy (to, value, strlen (value) + 1);
  return 0;
}

static int
set_name (char to[CRG_NAME_MAX + 1], const char *key, const char *value, char *err, size_t errlen)
{
  if (!ident_name_is_valid (value)) {
    snprintf (err, errlen, "%s=%s: not a name; use 1 to %d of a-z 0-9 _ . - and begin with a letter or digit",
              key, value, CRG_NAME_MAX);
    return -EINVAL;
  }
  return set_text (to, CRG_NAME_MAX + 1, key, value, err, errlen);
}

static int
set_id (uint8_t to[CRG_ID_LEN], const char *key, const char *value, char *err, size_t errlen)
{
  if (ident_id_from_text (value, to) < 0 || ident_id_is_zero (to)) {
    snprintf (err, errlen, "%s=%s: not an id; it has 32 hexadecimal digits, not all zero", key, value);
    return -EINVAL;
  }
  return 0;
}

static int
set_number (uint64_t *to, const char *key, const char *value, uint64_t max, char *err, size_t errlen)
{
  char *end;
  unsigned long long n;

  errno = 0;
  n = strtoull (value, &end, 10);
  if (errno != 0 || value[0] < '0' || value[0] > '9' || *end != '\0' || n > max) {
    snprintf (err, errlen, "%s=%s: not a number from 0 to %llu", key, value, (unsigned long long) max);
    return -EINVAL;
  }
  *to = n;
  return 0;
}

/* ADDR[,ADDR...]:PORT; an IPv6 address stands in brackets. */
static int
set_listen (struct params *p, const char *value, char *err, size_t errlen)
{
  const char *colon = strrchr (value, ':');
  const char *s = value;
  uint64_t port;

  if (!colon || colon == value)
    goto bad;
  if (set_number (&port, "listen", colon + 1, 65535, err, errlen) < 0)
    return -EINVAL;
  p->listen_port = (uint16_t) port;
  p->n_listen = 0;
  while (s < colon) {
    const char *comma = memchr (s, ',', (size_t) (colon - s));
    const char *e = comma ? comma : colon;
    const char *from = s, *to = e;

    if (*from == '[' && to > from + 1 && to[-1] == ']') {
      from++;
      to--;
    }
    if (from == to || to - from > CRG_ADDR_MAX || p->n_listen == CRG_MAX_ADDRS)
      goto bad;
    memcpy (p->listen[p->n_listen], from, (size_t) (to - from));
    p->listen[p->n_listen][to - from] = '\0';
    p->n_listen++;
    s = comma ? comma + 1 : colon;
  }
  return 0;

bad:
  snprintf (err, errlen, "listen=%s: it must be ADDRESS[,ADDRESS]:PORT with 1 to %d addresses", value,
            CRG_MAX_ADDRS);
  return -EINVAL;
}

static int
set_size (struct params *p, const char *value, char *err, size_t errlen)
{
  if (set_number (&p->size, "size", value, STORE_MAX_BYTES, err, errlen) < 0)
    return -EINVAL;
  if (p->size == 0 || p->size % 512 != 0) {
    snprintf (err, errlen, "size=%s: it must be a multiple of 512, above 0", value);
    return -EINVAL;
  }
  return 0;
}

static int
set_dirty_block (struct params *p, const char *value, char *err, size_t errlen)
{
  uint64_t n;

  if (set_number (&n, "dirty-block", value, DIRTY_BLOCK_SIZE_MAX, err, errlen) < 0)
    return -EINVAL;
  if (!is_power_of_2 (n) || n < DIRTY_BLOCK_SIZE_MIN) {
    snprintf (err, errlen, "dirty-block=%s: it must be a power of two from %d to %d", value,
              DIRTY_BLOCK_SIZE_MIN, DIRTY_BLOCK_SIZE_MAX);
    return -EINVAL;
  }
  p->dirty_block = (uint32_t) n;
  return 0;
}

static int
set_ms (uint32_t *to, const char *key, const char *value, char *err, size_t errlen)
{
  uint64_t n;

  if (set_number (&n, key, value, PARAMS_MAX_TIMEOUT_MS, err, errlen) < 0)
    return -EINVAL;
  *to = (uint32_t) n;
  return 0;
}

static int
set_onoff (bool *to, const char *key, const char *value, char *err, size_t errlen)
{
  if (strcmp (value, "on") != 0 && strcmp (value, "off") != 0) {
    snprintf (err, errlen, "%s=%s: it must be on or off", key, value);
    return -EINVAL;
  }
  *to = strcmp (value, "on") == 0;
  return 0;
}

int
params_set (struct params *p, const char *key, const char *value, char *err, size_t errlen)
{
  unsigned k = 0;

  while (k < K_END && strcmp (keys[k], key) != 0)
    k++;
  if (k == K_END) {
    snprintf (err, errlen, "unknown key '%s'; nbdkit --help iasp lists the keys", key);
    return -EINVAL;
  }
  if (p->seen & BIT (k)) {
    snprintf (err, errlen, "%s= is given twice", key);
    return -EINVAL;
  }
  p->seen |= BIT (k);

  switch ((enum key) k) {
  case K_NAME: return set_name (p->name, key, value, err, errlen);
  case K_STORE: return set_text (p->store, sizeof p->store, key, value, err, errlen);
  case K_META: return set_text (p->meta, sizeof p->meta, key, value, err, errlen);
  case K_DIRECT:
    if (strcmp (value, "auto") == 0)
      p->direct = STORE_DIRECT_AUTO;
    else if (strcmp (value, "on") == 0)
      p->direct = STORE_DIRECT_ON;
    else if (strcmp (value, "off") == 0)
      p->direct = STORE_DIRECT_OFF;
    else {
      snprintf (err, errlen, "direct=%s: it must be auto, on or off", value);
      return -EINVAL;
    }
    return 0;
  case K_ROLE:
    if (strcmp (value, "production") != 0) {
      snprintf (err, errlen, "role=%s: by hand the only role is production; a mirror copy gets its role "
                "through control=", value);
      return -EINVAL;
    }
    p->role_production = true;
    return 0;
  case K_CONTROL: return set_text (p->control, sizeof p->control, key, value, err, errlen);
  case K_NODE: return set_name (p->node, key, value, err, errlen);
  case K_NODE_ID: {
    uint64_t n;

    if (set_number (&n, key, value, UINT32_MAX, err, errlen) < 0)
      return -EINVAL;
    p->node_id = (uint32_t) n;
    return 0;
  }
  case K_SITE: return set_name (p->site, key, value, err, errlen);
  case K_CRG: return set_name (p->crg, key, value, err, errlen);
  case K_CLUSTER_ID: return set_id (p->cluster_id, key, value, err, errlen);
  case K_CRG_ID: return set_id (p->crg_id, key, value, err, errlen);
  case K_IASP_ID: return set_id (p->iasp_id, key, value, err, errlen);
  case K_LINEAGE: return set_id (p->lineage, key, value, err, errlen);
  case K_SIZE: return set_size (p, value, err, errlen);
  case K_DIRTY_BLOCK: return set_dirty_block (p, value, err, errlen);
  case K_LISTEN: return set_listen (p, value, err, errlen);
  case K_TLS_CA: return set_text (p->tls_ca, sizeof p->tls_ca, key, value, err, errlen);
  case K_TLS_CERT: return set_text (p->tls_cert, sizeof p->tls_cert, key, value, err, errlen);
  case K_TLS_KEY: return set_text (p->tls_key, sizeof p->tls_key, key, value, err, errlen);
  case K_SUSPEND_TIMEOUT_MS: return set_ms (&p->suspend_timeout_ms, key, value, err, errlen);
  case K_NO_QUORUM_TIMEOUT_MS: return set_ms (&p->no_quorum_timeout_ms, key, value, err, errlen);
  case K_STORE_ERROR:
    if (strcmp (value, "fail-over") != 0 && strcmp (value, "return") != 0) {
      snprintf (err, errlen, "store-error=%s: it must be fail-over or return", value);
      return -EINVAL;
    }
    p->return_store_error = strcmp (value, "return") == 0;
    return 0;
  case K_RESYNC_TARGET_S: {
    uint64_t n;

    if (set_number (&n, key, value, 3600, err, errlen) < 0)
      return -EINVAL;
    p->resync_target_s = (uint32_t) n;
    return 0;
  }
  case K_RESYNC_SHARE: {
    uint64_t n;

    if (set_number (&n, key, value, 100, err, errlen) < 0)
      return -EINVAL;
    if (n == 0) {
      snprintf (err, errlen, "%s=%s: it must be a percentage from 1 to 100", key, value);
      return -EINVAL;
    }
    p->resync_share = (uint32_t) n;
    return 0;
  }
  case K_SNAPSHOT: return set_onoff (&p->snapshot, key, value, err, errlen);
  case K_RESERVATION: return set_onoff (&p->reservation, key, value, err, errlen);
  case K_SNAPSHOT_HOOK:
    if (value[0] != '/') {
      snprintf (err, errlen, "%s=%s: it must be an absolute path", key, value);
      return -EINVAL;
    }
    return set_text (p->snapshot_hook, sizeof p->snapshot_hook, key, value, err, errlen);
#ifdef CRG_TEST
  case K_FAULT_NO_TRACKING: p->fault_no_tracking = value[0] == '1'; return 0;
  case K_FAULT_WRITTEN: p->fault_written = value[0] == '1'; return 0;
#endif
  case K_END: break;
  }
  return -EINVAL;
}

static int
missing (const struct params *p, uint32_t wanted, const char *with, char *err, size_t errlen)
{
  for (unsigned k = 0; k < K_END; k++)
    if ((wanted & BIT (k)) && !(p->seen & BIT (k))) {
      snprintf (err, errlen, "%s= is missing%s%s", keys[k], with[0] ? "; it is required with " : "", with);
      return -EINVAL;
    }
  return 0;
}

int
params_complete (struct params *p, char *err, size_t errlen)
{
  if (missing (p, BIT (K_NAME) | BIT (K_STORE), "", err, errlen) < 0)
    return -EINVAL;
  if (p->control[0] == '\0') {
    if (!p->role_production) {
      snprintf (err, errlen, "no role: give role=production for a plain export by hand, "
                "or control=SOCKET for a controller");
      return -EINVAL;
    }
    for (unsigned k = 0; k < K_END; k++)
      if ((CONTROL_ANY & BIT (k)) && (p->seen & BIT (k))) {
        snprintf (err, errlen, "%s= has a meaning only with control=", keys[k]);
        return -EINVAL;
      }
    return 0;
  }
  if (p->role_production) {
    snprintf (err, errlen, "role=production and control= exclude each other: with a controller it gives the role");
    return -EINVAL;
  }
  if (missing (p, CONTROL_ALL, "control=", err, errlen) < 0)
    return -EINVAL;
  /* S1 c: half of it would be no protection. */
  if (p->reservation && p->meta[0] != '\0') {
    snprintf (err, errlen, "persistent-reservation=on and meta= exclude each other: only the store's device would be "
              "reserved, not that of its metadata");
    return -EINVAL;
  }
  if (p->n_listen > 0 && missing (p, LINK_ALL, "listen=", err, errlen) < 0)
    return -EINVAL;
  return 0;
}
