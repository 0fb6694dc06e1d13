/* A libnvidia-ml.so.1 with two devices, one of which shares the host's memory. */
#include <stdint.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
static int devices[2];
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
const char *nvmlErrorString(int result) { (void)result; return "an error"; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return SUCCESS; }
int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    strncpy(version, "590.44", length);
    return SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index > 1) return INVALID_ARGUMENT;
    *device = &devices[index];
    return SUCCESS;
}
int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    strncpy(name, device == &devices[0] ? "NVIDIA H100" : "NVIDIA GB10", length);
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = device == &devices[0] ? 9 : 12;
    *minor = device == &devices[0] ? 0 : 1;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    if (device != &devices[0]) return NOT_SUPPORTED;
    memory->total = 80ULL << 30;
    memory->used = 10ULL << 30;
    memory->free = 70ULL << 30;
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
    if (device != &devices[0]) return NOT_SUPPORTED;
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
