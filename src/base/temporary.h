/* Names for what is not finished yet. A temporary "<path>.tmp.<16 hex digits>" is locked as long as its maker works on it:
 * two processes never share one, whatever their ids and machines, and one without a lock was left by a killed process. */
#ifndef MQ_BASE_TEMPORARY_H
#define MQ_BASE_TEMPORARY_H

#include "mixquant.h"

typedef struct mq_temporary {
    char *path; /* owned; NULL: none */
    int lock;   /* descriptor that holds the lock; a file's is open for writing */
} mq_temporary;

/* Makes a file or a directory beside `path`, and removes what killed processes left of the same `path`. */
mq_status mq__temporary_new(const char *path, bool is_directory, mq_temporary *temporary, mq_error *error);
/* Renames it to `path`; what fails to be renamed is removed. Ends the temporary in both cases. */
mq_status mq__temporary_rename(mq_temporary *temporary, const char *path, mq_error *error);
void mq__temporary_remove(mq_temporary *temporary); /* no-op on a zeroed or ended one */

/* Removes every abandoned temporary file of a directory. */
void mq__temporary_sweep(const char *dir);

#endif
