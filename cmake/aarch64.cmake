# Cross-builds for 64-bit ARM with Debian's gcc-aarch64-linux-gnu. MQ_SYSROOT: where scripts/check-arm unpacked the target's
# packages. What ctest runs goes through qemu-user; QEMU_CPU in the environment chooses the processor.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES MQ_SYSROOT)
set(CMAKE_SYSROOT ${MQ_SYSROOT})
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-L;${MQ_SYSROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} "${MQ_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${MQ_SYSROOT}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${MQ_SYSROOT}")
