/* Limits of control groups, from copies of the files that kernels and container engines show. */
#include "base/container.h"
#include "unit_files.h"

static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", unit_dir, name);
    for (char *slash = strchr(path + strlen(unit_dir) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void check_limits(double processors, uint64_t memory, uint64_t used)
{
    mq_container limits;
    mq__container_limits(unit_dir, &limits);
    assert_true(fabs(limits.processors - processors) < 1e-9);
    assert_int_equal(limits.memory, memory);
    assert_int_equal(limits.memory_used, used);
}

static void test_no_groups(void **state)
{
    (void)state;
    check_limits(0, 0, 0);
    put("proc/self/cgroup", "0::/\n");
    check_limits(0, 0, 0);
    put("proc/self/cgroup", "nonsense\n\n:::\n0\n");
    check_limits(0, 0, 0);
}

static void test_second_version(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a/b\n");
    put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/a/b/memory.max", "max\n");
    check_limits(0, 0, 0);
    put("sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
    put("sys/fs/cgroup/a/b/memory.max", "1073741824\n");
    put("sys/fs/cgroup/a/b/memory.current", "400000000\n");
    check_limits(1.5, 1073741824, 400000000);
    /* File pages do not count: the kernel drops them first. */
    put("sys/fs/cgroup/a/b/memory.stat", "anon 1\nfile 5\ninactive_file_x 7\ninactive_file 300000000\nslab 3\n");
    check_limits(1.5, 1073741824, 100000000);
    /* The tightest group on the way up binds. */
    put("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    put("sys/fs/cgroup/a/memory.max", "536870912\n");
    put("sys/fs/cgroup/a/memory.current", "1000\n");
    check_limits(0.5, 536870912, 1000);
    put("sys/fs/cgroup/a/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/a/memory.max", "2147483648\n");
    check_limits(1.5, 1073741824, 100000000);
}

/* A container without a namespace of its own sees the host's path, and its own group at the mount. */
static void test_group_at_the_mount(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/docker/0123456789abcdef\n");
    put("sys/fs/cgroup/cpu.max", "200000 100000\n");
    put("sys/fs/cgroup/memory.max", "1000000000\n");
    check_limits(2, 1000000000, 0);
}

static void test_first_version(void **state)
{
    (void)state;
    put("proc/self/cgroup", "12:pids:/x\n5:cpu,cpuacct:/kube/pod\n4:memory:/kube/pod\n2:cpuset:/\n1:name=systemd:/x\n");
    put("sys/fs/cgroup/cpu,cpuacct/kube/pod/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/kube/pod/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/kube/pod/memory.limit_in_bytes", "9223372036854771712\n");
    check_limits(0, 0, 0);
    put("sys/fs/cgroup/cpu,cpuacct/kube/pod/cpu.cfs_quota_us", "300000\n");
    put("sys/fs/cgroup/memory/kube/pod/memory.limit_in_bytes", "4294967296\n");
    put("sys/fs/cgroup/memory/kube/pod/memory.usage_in_bytes", "3000\n");
    put("sys/fs/cgroup/memory/kube/pod/memory.stat", "inactive_file 9\ntotal_inactive_file 1000\n");
    check_limits(3, 4294967296, 2000);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
    check_limits(3, 2147483648, 0);
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n"); /* the mount under its other name */
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    check_limits(1, 2147483648, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_groups),
        TEST(test_second_version),
        TEST(test_group_at_the_mount),
        TEST(test_first_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
