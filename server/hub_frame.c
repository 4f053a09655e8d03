/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The codec and the buffers of hub_frame.h.  Owns the buffers of a stream and
 * its descriptor; must never block and never trust a length it has read.
 */
#include "server/hub_frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"

#define HUB_FRAME_MAX (HUB_HEADER_LEN + CRG_NAME_MAX + CRG_ENGINE_MSG_MAX)
#define HUB_READ_CHUNK (64 * 1024)

void
hub_stream_init (struct hub_stream *s, int fd)
{
  memset (s, 0, sizeof *s);
  s->fd = fd;
}

void
hub_stream_close (struct hub_stream *s)
{
  if (s->fd >= 0)
    close (s->fd);
  free (s->in);
  free (s->out);
  hub_stream_init (s, -1);
}

static void
drop_returned_frame (struct hub_stream *s)
{
  if (s->in_used == 0)
    return;
  memmove (s->in, s->in + s->in_used, s->in_len - s->in_used);
  s->in_len -= s->in_used;
  s->in_used = 0;
}

int
hub_stream_fill (struct hub_stream *s)
{
  ssize_t r;

  if (s->fd < 0)
    return -EBADF; /* closed: nothing is held any more */
  drop_returned_frame (s);
  if (s->in_cap - s->in_len < HUB_READ_CHUNK) {
    size_t cap = s->in_len + HUB_READ_CHUNK;
    uint8_t *in;

    if (cap > HUB_FRAME_MAX + HUB_READ_CHUNK)
      return -EMSGSIZE; /* the caller did not take the frames */
    cap = MAX (cap, MIN (2 * s->in_cap, (size_t) HUB_FRAME_MAX + HUB_READ_CHUNK));
    in = realloc (s->in, cap);
    if (in == NULL)
      return -ENOMEM;
    s->in = in;
    s->in_cap = cap;
  }
  do
    r = read (s->fd, s->in + s->in_len, s->in_cap - s->in_len);
  while (r < 0 && errno == EINTR);
  if (r < 0)
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
  s->in_len += (size_t) r;
  return (int) r;
}

int
hub_stream_next (struct hub_stream *s, struct hub_frame *f)
{
  const uint8_t *p;
  size_t name_len, payload_len;

  drop_returned_frame (s);
  if (s->in_len < HUB_HEADER_LEN)
    return 0;
  p = s->in;
  name_len = get_le16 (p + 6);
  payload_len = get_le32 (p + 12);
  if (get_le32 (p) != HUB_MAGIC || p[4] != HUB_VERSION || p[5] == 0 || p[5] >= HUB_TYPE_END
      || name_len > CRG_NAME_MAX || payload_len > CRG_ENGINE_MSG_MAX)
    return -EPROTO;
  if (s->in_len < HUB_HEADER_LEN + name_len + payload_len)
    return 0;
  f->type = p[5];
  f->node = get_le32 (p + 8);
  f->view = get_le64 (p + 16);
  memcpy (f->group, p + HUB_HEADER_LEN, name_len);
  f->group[name_len] = '\0';
  if (strlen (f->group) != name_len)
    return -EPROTO;
  f->payload = p + HUB_HEADER_LEN + name_len;
  f->len = payload_len;
  s->in_used = HUB_HEADER_LEN + name_len + payload_len;
  return 1;
}

int
hub_stream_put (struct hub_stream *s, const struct hub_frame *f)
{
  size_t name_len = strlen (f->group);
  size_t need = HUB_HEADER_LEN + name_len + f->len;
  uint8_t *p;

  if (name_len > CRG_NAME_MAX || f->len > CRG_ENGINE_MSG_MAX)
    return -EMSGSIZE;
  if (s->out_len + need > HUB_OUT_MAX)
    return -ENOBUFS;
  if (s->out_start + s->out_len + need > s->out_cap && s->out_start > 0) {
    memmove (s->out, s->out + s->out_start, s->out_len);
    s->out_start = 0;
  }
  if (s->out_len + need > s->out_cap) {
    size_t cap = MAX (s->out_len + need, MIN (2 * s->out_cap, (size_t) HUB_OUT_MAX));
    uint8_t *out = realloc (s->out, cap);

    if (out == NULL)
      return -ENOMEM;
    s->out = out;
    s->out_cap = cap;
  }
  p = s->out + s->out_start + s->out_len;
  put_le32 (p, HUB_MAGIC);
  p[4] = HUB_VERSION;
  p[5] = f->type;
  put_le16 (p + 6, (uint16_t) name_len);
  put_le32 (p + 8, f->node);
  put_le32 (p + 12, (uint32_t) f->len);
  put_le64 (p + 16, f->view);
  memcpy (p + HUB_HEADER_LEN, f->group, name_len);
  if (f->len > 0)
    memcpy (p + HUB_HEADER_LEN + name_len, f->payload, f->len);
  s->out_len += need;
  return 0;
}

int
hub_stream_flush (struct hub_stream *s)
{
  while (s->out_len > 0) {
    ssize_t r = send (s->fd, s->out + s->out_start, s->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (r < 0) {
      if (errno == EINTR)
        continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK)
        return 1;
      return -errno;
    }
    s->out_start += (size_t) r;
    s->out_len -= (size_t) r;
  }
  s->out_start = 0;
  return 0;
}
