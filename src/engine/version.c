#include "mixquant.h"

const char *mq_version(void)
{
    return MQ_VERSION;
}

const char *mq_commit(void)
{
    return MQ_COMMIT;
}
