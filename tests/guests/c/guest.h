/* For guests written in C: ports, serial output, PCI and virtio as a driver sees them. Everything runs in 32-bit
 * protected mode without paging or interrupts, at about a million instructions a second where KVM emulates. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct start_info {
  uint32_t magic, version, flags, module_count;
  uint64_t modules, command_line, rsdp, memory_map;
  uint32_t memory_map_entries;
};

static inline void outb(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outw(uint16_t port, uint16_t value) {
  __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t value) {
  __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t inb(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint32_t inl(uint16_t port) {
  uint32_t value;
  __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline void barrier(void) {
  __asm__ volatile("lock; addl $0, (%%esp)" : : : "memory", "cc");
}

static void put_char(char c) {
  while ((inb(0x3fd) & 0x20) == 0) {
  }
  outb(0x3f8, (uint8_t)c);
}
static void put(const char* text) {
  while (*text != 0) {
    put_char(*text++);
  }
}
static void put_hex(uint32_t value) {
  for (int shift = 28; shift >= 0; shift -= 4) {
    put_char("0123456789abcdef"[value >> shift & 15]);
  }
}

/* memset and memcpy are called by the compiler, too. A KVM that emulates takes as long for a word here as for one
 * instruction of a loop. */
void* memset(void* target, int value, size_t bytes) {
  void* at = target;
  const uint32_t pattern = (uint8_t)value * 0x01010101u;
  size_t words = bytes / 4;
  size_t rest = bytes % 4;
  __asm__ volatile("rep stosl" : "+D"(at), "+c"(words) : "a"(pattern) : "memory");
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(rest) : "a"(pattern) : "memory");
  return target;
}
void* memcpy(void* target, const void* source, size_t bytes) {
  uint8_t* at = target;
  const uint8_t* from = source;
  while (bytes-- != 0) {
    *at++ = *from++;
  }
  return target;
}

/* The same numbers each time (xorshift32). */
static uint32_t random_state = 2463534242u;
static uint32_t random32(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

/* Memory accesses of a driver. */
static inline uint32_t read32(uint32_t at) {
  return *(volatile uint32_t*)at;
}
static inline uint16_t read16(uint32_t at) {
  return *(volatile uint16_t*)at;
}
static inline uint8_t read8(uint32_t at) {
  return *(volatile uint8_t*)at;
}
static inline void write32(uint32_t at, uint32_t value) {
  *(volatile uint32_t*)at = value;
}
static inline void write16(uint32_t at, uint16_t value) {
  *(volatile uint16_t*)at = value;
}
static inline void write8(uint32_t at, uint8_t value) {
  *(volatile uint8_t*)at = value;
}

/* PCI configuration, by ports. */
static uint32_t config_read(unsigned device, unsigned offset) {
  outl(0xcf8, 0x80000000u | device << 11 | (offset & 0xfc));
  return inl(0xcfc);
}
static void config_write(unsigned device, unsigned offset, uint32_t value) {
  outl(0xcf8, 0x80000000u | device << 11 | (offset & 0xfc));
  outl(0xcfc, value);
}
static int is_there(unsigned device) {
  return (config_read(device, 0) & 0xffff) != 0xffff;
}
static uint8_t config_byte(unsigned device, unsigned offset) {
  return (uint8_t)(config_read(device, offset) >> (offset & 3) * 8);
}

/* A virtio device (virtio 1.2, 4.1.4): where its structures are. */
struct virtio {
  unsigned device;
  uint16_t type;
  uint32_t common, notify, notify_multiplier, isr, config, window;
  uint16_t notify_port; /* doorbells as ports; 0: there are none */
  unsigned msix;
};

static int find_virtio(unsigned device, struct virtio* found) {
  const uint32_t id = config_read(device, 0);
  if ((id & 0xffff) != 0x1af4 || id >> 16 < 0x1040) {
    return 0;
  }
  memset(found, 0, sizeof *found);
  found->device = device;
  found->type = (uint16_t)((id >> 16) - 0x1040);
  found->window = config_read(device, 0x10) & ~15u;
  config_write(device, 4, 7);
  for (unsigned at = config_byte(device, 0x34); at != 0; at = config_byte(device, at + 1)) {
    const uint8_t kind = config_byte(device, at);
    if (kind == 0x11) {
      found->msix = at;
    }
    if (kind != 9) {
      continue;
    }
    if (config_byte(device, at + 4) != 0) {
      if (config_byte(device, at + 3) == 2) {
        const unsigned bar = 0x10 + 4u * config_byte(device, at + 4);
        found->notify_port = (uint16_t)((config_read(device, bar) & ~3u) + config_read(device, at + 8));
      }
      continue;
    }
    const uint32_t place = found->window + config_read(device, at + 8);
    switch (config_byte(device, at + 3)) {
      case 1:
        found->common = place;
        break;
      case 2:
        found->notify = place;
        found->notify_multiplier = config_read(device, at + 16);
        break;
      case 3:
        found->isr = place;
        break;
      case 4:
        found->config = place;
        break;
      default:
        break;
    }
  }
  return found->common != 0;
}

enum {
  DEVICE_FEATURE_SELECT = 0x00,
  DEVICE_FEATURE = 0x04,
  DRIVER_FEATURE_SELECT = 0x08,
  DRIVER_FEATURE = 0x0c,
  CONFIG_VECTOR = 0x10,
  NUM_QUEUES = 0x12,
  DEVICE_STATUS = 0x14,
  QUEUE_SELECT = 0x16,
  QUEUE_SIZE = 0x18,
  QUEUE_VECTOR = 0x1a,
  QUEUE_ENABLE = 0x1c,
  QUEUE_DESC = 0x20,
  QUEUE_DRIVER = 0x28,
  QUEUE_DEVICE = 0x30
};

/* True once the device has forgotten its driver; it may take its time. */
static int virtio_reset(const struct virtio* dev) {
  write8(dev->common + DEVICE_STATUS, 0);
  for (unsigned tries = 0; tries < 200000; ++tries) {
    if (read8(dev->common + DEVICE_STATUS) == 0) {
      return 1;
    }
  }
  return 0;
}

/* Reset, then up to FEATURES_OK with everything that is offered. */
static void virtio_agree(const struct virtio* dev) {
  virtio_reset(dev);
  write8(dev->common + DEVICE_STATUS, 1);
  write8(dev->common + DEVICE_STATUS, 3);
  for (uint32_t half = 0; half < 2; ++half) {
    write32(dev->common + DEVICE_FEATURE_SELECT, half);
    write32(dev->common + DRIVER_FEATURE_SELECT, half);
    write32(dev->common + DRIVER_FEATURE, read32(dev->common + DEVICE_FEATURE));
  }
  write8(dev->common + DEVICE_STATUS, 11);
}

struct queue {
  uint16_t index, size, available;
  uint32_t table, driver_ring, device_ring;
};

static void queue_place(const struct virtio* dev, const struct queue* queue) {
  write16(dev->common + QUEUE_SELECT, queue->index);
  write16(dev->common + QUEUE_SIZE, queue->size);
  const uint32_t places[3] = {queue->table, queue->driver_ring, queue->device_ring};
  for (unsigned i = 0; i < 3; ++i) {
    write32(dev->common + QUEUE_DESC + 8 * i, places[i]);
    write32(dev->common + QUEUE_DESC + 8 * i + 4, 0);
  }
  write16(dev->common + QUEUE_ENABLE, 1);
}
static void queue_describe(const struct queue* queue, unsigned index, uint64_t address, uint32_t bytes, uint16_t flags,
                           uint16_t next) {
  const uint32_t at = queue->table + 16 * index;
  write32(at, (uint32_t)address);
  write32(at + 4, (uint32_t)(address >> 32));
  write32(at + 8, bytes);
  write16(at + 12, flags);
  write16(at + 14, next);
}
static void queue_offer(struct queue* queue, uint16_t head) {
  write16(queue->driver_ring + 4 + 2 * (queue->available % queue->size), head);
  barrier();
  write16(queue->driver_ring + 2, ++queue->available);
  barrier();
}
/* By memory and by ports in turn. */
static void queue_notify(const struct virtio* dev, const struct queue* queue) {
  if (dev->notify_port != 0 && (queue->available & 1) != 0) {
    outw((uint16_t)(dev->notify_port + queue->index * dev->notify_multiplier), queue->index);
  } else {
    write16(dev->notify + queue->index * dev->notify_multiplier, queue->index);
  }
}
