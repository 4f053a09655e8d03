/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a plugin is told, from the group's state: its command line's values,
 * the record, its peers, the mirrors; see nbdkit-iasp-plugin(1) for the
 * control protocol.  Any thread; new references are the caller's.
 */
#ifndef CRG_TELL_H
#define CRG_TELL_H

#include <jansson.h>

#include "common/conf.h"
#include "server/group.h"
#include "server/supervise.h"

/* "" if there is no such node. */
extern const char *tell_node_name (const struct crg_state *s, uint32_t id);
/* The values for `iasp` on the node with index `node`.  False: a replicate,
 * or its export can't be resolved. */
extern bool tell_spec (const struct conf_crgd *conf, const struct crg_state *s, unsigned iasp,
                       unsigned node, struct plugin_spec *spec);
extern json_t *tell_record (const struct crg_state *s, unsigned iasp);
/* "peers": the nodes that may be at the other end of a mirror link of node
 * index `self`; "production": where production is. */
extern json_t *tell_role_extra (const struct crg_state *s, unsigned iasp, unsigned self,
                                const uint8_t boot_id[CRG_ID_LEN]);
/* The request `mirror`, for production: message 6. */
extern json_t *tell_mirror (const struct crg_state *s, unsigned iasp, unsigned site,
                            uint32_t node, enum mirror_sync sync);

#endif
