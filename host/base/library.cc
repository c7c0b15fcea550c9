// libvmmhost.so has all its code from vmmhost_host; this names the build for `strings` and for core dumps.
#include "host/base/build_info.h"

extern "C" __attribute__((visibility("default"), used)) const char vmmhost_build[] = "vmmhost " VMMHOST_VERSION;
