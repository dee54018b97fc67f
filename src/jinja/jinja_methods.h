/* Methods of strings, for the table in jinja_methods.c. */
#ifndef MQ_FORMAT_JINJA_METHODS_H
#define MQ_FORMAT_JINJA_METHODS_H

#include "jinja/jinja_run.h"

mq_jvalue mq__jstring_capitalize(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_center(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_count(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_endswith(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_find(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_index(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isalnum(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isalpha(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isascii(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isdecimal(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isdigit(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_islower(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isnumeric(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isprintable(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isspace(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_isupper(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_join(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_ljust(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_lower(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_lstrip(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_partition(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_removeprefix(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_removesuffix(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_replace(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_rfind(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_rindex(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_rjust(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_rpartition(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_rsplit(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_rstrip(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_split(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_splitlines(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_startswith(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_strip(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_swapcase(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_title(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_upper(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
mq_jvalue mq__jstring_zfill(mq_jrun *run, mq_jvalue self, const mq_jargs *args);

#endif
