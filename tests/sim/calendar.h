/* SPDX-License-Identifier: BSD-3-Clause */
/* The calendar of a simulator: a binary heap of events of its own type, which has `at` and `order`.
 * The earliest comes first, and of two for the same moment the one that was entered first.
 */
#ifndef SIM_CALENDAR_H
#define SIM_CALENDAR_H

/* Defines, for struct TYPE:
 *   calendar_add (heap, &n, e): enters e, and gives where it is; the caller has seen that there is room
 *   calendar_take (heap, &n): the next one, of at least one */
#define CALENDAR(TYPE)                                                                             \
  static bool calendar_earlier (const struct TYPE *a, const struct TYPE *b)                        \
  {                                                                                                \
    return a->at < b->at || (a->at == b->at && a->order < b->order);                               \
  }                                                                                                \
                                                                                                   \
  static struct TYPE *calendar_add (struct TYPE *heap, unsigned *n, struct TYPE e)                 \
  {                                                                                                \
    unsigned i = (*n)++;                                                                           \
                                                                                                   \
    while (i > 0 && calendar_earlier (&e, &heap[(i - 1) / 2])) {                                   \
      heap[i] = heap[(i - 1) / 2];                                                                 \
      i = (i - 1) / 2;                                                                             \
    }                                                                                              \
    heap[i] = e;                                                                                   \
    return &heap[i];                                                                               \
  }                                                                                                \
                                                                                                   \
  static struct TYPE calendar_take (struct TYPE *heap, unsigned *n)                                \
  {                                                                                                \
    const struct TYPE first = heap[0], e = heap[--*n];                                             \
    unsigned i = 0, k;                                                                             \
                                                                                                   \
    while ((k = 2 * i + 1) < *n) {                                                                 \
      if (k + 1 < *n && calendar_earlier (&heap[k + 1], &heap[k]))                                 \
        k++;                                                                                       \
      if (!calendar_earlier (&heap[k], &e))                                                        \
        break;                                                                                     \
      heap[i] = heap[k];                                                                           \
      i = k;                                                                                       \
    }                                                                                              \
    heap[i] = e;                                                                                   \
    return first;                                                                                  \
  }

#endif
