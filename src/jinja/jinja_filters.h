/* The filters over sequences, for the table in jinja_filters.c. */
#ifndef MQ_FORMAT_JINJA_FILTERS_H
#define MQ_FORMAT_JINJA_FILTERS_H

#include "jinja/jinja_run.h"

mq_jvalue mq__jfilter_batch(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_dictsort(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_first(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_groupby(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_items(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_join(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_last(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_length(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_list(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_map(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_max(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_min(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_reject(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_rejectattr(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_reverse(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_select(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_selectattr(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_slice(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_sort(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_sum(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jfilter_unique(mq_jrun *run, mq_jvalue self, const mq_jargs *args);

#endif
