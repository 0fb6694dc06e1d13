/* A libnvidia-ml.so.1 with three GPUs: one shares the host's memory, one has MIG instances. */
#include <stdint.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
static int devices[3], instances[2];
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
const char *nvmlErrorString(int result) { (void)result; return "an error"; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return SUCCESS; }
int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    strncpy(version, "590.44", length);
    return SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index > 2) return INVALID_ARGUMENT;
    *device = &devices[index];
    return SUCCESS;
}
int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    const char *known = "NVIDIA A100 MIG 3g.20gb";
    if (device == &devices[0]) known = "NVIDIA H100";
    if (device == &devices[1]) known = "NVIDIA GB10";
    strncpy(name, known, length);
    return SUCCESS;
}
/* The GB10 tells no UUID, as under some virtual machines. */
static const char *uuid_of(void *device) {
    if (device == &devices[0]) return "GPU-aa";
    if (device == &devices[2]) return "GPU-cc";
    if (device == &instances[0]) return "MIG-c0";
    return device == &instances[1] ? "MIG-c1" : 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    if (!uuid_of(device)) return NOT_SUPPORTED;
    strncpy(uuid, uuid_of(device), length);
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    void *all[] = {&devices[0], &devices[2], &instances[0], &instances[1]};
    for (int i = 0; i < 4; i++)
        if (!strcmp(uuid, uuid_of(all[i]))) { *device = all[i]; return SUCCESS; }
    return NOT_FOUND;
}
int nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *pending) {
    if (device == &devices[1]) return NOT_SUPPORTED;
    *current = *pending = device == &devices[2];
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned int *count) {
    (void)device;
    *count = 7;
    return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned int index, void **instance) {
    if (device != &devices[2]) return INVALID_ARGUMENT;
    if (index != 0 && index != 4) return NOT_FOUND;
    *instance = &instances[index / 4];
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = device == &devices[0] ? 9 : device == &devices[1] ? 12 : 8;
    *minor = device == &devices[1];
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    if (device == &devices[1]) return NOT_SUPPORTED;
    if (device == &instances[1]) {
        memory->total = 20ULL << 30;
        memory->used = 1ULL << 30;
        memory->free = 19ULL << 30;
        return SUCCESS;
    }
    memory->total = 80ULL << 30;
    memory->used = 10ULL << 30;
    memory->free = 70ULL << 30;
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
    if (device == &devices[1]) return NOT_SUPPORTED;
    if (device != &devices[0]) return INVALID_ARGUMENT;
    rates->gpu = 37;
    rates->memory = 5;
    return SUCCESS;
}
typedef struct { unsigned int version; int sensor; int temperature; } temperature_t;
int nvmlDeviceGetTemperatureV(void *device, temperature_t *reading) {
    (void)device;
    reading->temperature = 55;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *celsius) {
    (void)device; (void)sensor;
    *celsius = 55;
    return SUCCESS;
}
