/* A guest whose drivers break every rule. The command line says which: pci, bars, msix, window, chains, storm, resets,
 * moves, noise, lies, panics; or rebinds and write, whose drivers keep them all. It says what it did and powers off:
 * whatever it does, its worker has to live and answer. With the word "short" behind it, what is left to chance is tried
 * less often; all that is listed is done all the same. "rebinds forever" has no end. */
#include "guest.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, DEVICES = 32, QUEUES = 8, QUEUE_SIZE_USED = 16 };
enum { QUEUE_MEMORY = 0x800000, QUEUE_BYTES = 0x4000, INDIRECT_TABLE = 0xa00000, BUFFERS = 0xb00000 };
enum { REBOUND_QUEUES = 0x1000000, REBOUND_BUFFERS = 0x2000000 }; /* for each device its own */

static struct queue queues[QUEUES];
static int is_short, is_endless;

static int is(const char* text, const char* word) {
  while (*word != 0 && *text == *word) {
    ++text;
    ++word;
  }
  return *word == 0 && (*text == 0 || *text == ' ');
}

/* How often chance is tried. */
static unsigned rounds(unsigned all) {
  return is_short ? all / 4 : all;
}

static unsigned queue_count(const struct virtio* dev) {
  const unsigned count = read16(dev->common + NUM_QUEUES);
  return count < QUEUES ? count : QUEUES;
}

/* A driver that is right so far, with empty queues in this memory. */
static void start_in(const struct virtio* dev, uint32_t memory) {
  virtio_agree(dev);
  for (unsigned i = 0; i < queue_count(dev); ++i) {
    struct queue* queue = &queues[i];
    const uint32_t at = memory + i * QUEUE_BYTES;
    queue->index = (uint16_t)i;
    queue->size = QUEUE_SIZE_USED;
    queue->available = 0;
    queue->table = at;
    queue->driver_ring = at + 0x1000;
    queue->device_ring = at + 0x2000;
    /* No more than the device reads of them: memory is slow where KVM emulates, and this is done often. */
    memset((void*)queue->table, 0, 16 * QUEUE_SIZE_USED);
    memset((void*)queue->driver_ring, 0, 6 + 2 * QUEUE_SIZE_USED);
    memset((void*)queue->device_ring, 0, 6 + 8 * QUEUE_SIZE_USED);
    queue_place(dev, queue);
  }
  write8(dev->common + DEVICE_STATUS, 15);
}

static void start(const struct virtio* dev) {
  start_in(dev, QUEUE_MEMORY);
}

static void each_virtio(void (*attack)(const struct virtio*)) {
  for (unsigned device = 0; device < DEVICES; ++device) {
    struct virtio dev;
    if (is_there(device) && find_virtio(device, &dev)) {
      put("virtio ");
      put_hex(dev.type);
      put("\n");
      attack(&dev);
      if (!virtio_reset(&dev)) {
        put("does not reset\n");
      }
    }
  }
}

/* Configuration space of every function, whether there is one or not. */
static void pci_garbage(void) {
  for (unsigned round = rounds(3000); round-- != 0;) {
    const unsigned device = random32() % DEVICES;
    config_write(device, random32() & 0xfc, random32());
    outl(0xcf8, random32());
    config_read(random32() % DEVICES, random32() & 0xfc);
    write32(0xe8000000u + (random32() & 0xfffff & ~3u), random32());
    read32(0xe8000000u + (random32() & 0xfffff & ~3u));
    read8(0xe8000000u + (random32() & 0xfffff));
  }
}

static uint32_t one_of(const uint32_t* values, unsigned count) {
  return values[random32() % count];
}

static void bars_anywhere(void) {
  static const uint32_t places[] = {0,          0x100000,   0x800000,   0xc0000000u, 0xe7ff8000u, 0xe7ffc000u,
                                    0xe8000000u, 0xfec00000u, 0xfee00000u, 0xffff8000u, 0xfffff000u};
  static const uint32_t ports[] = {0, 0x60, 0x3f8, 0x600, 0x608, 0xcf8, 0xc000, 0xc010, 0xfff0, 0x1c000, 0xffffffffu};
  for (unsigned i = 0; i < sizeof places / sizeof *places; ++i) {
    for (unsigned device = 1; device < DEVICES && is_there(device); ++device) {
      config_write(device, 4, 7);
      config_write(device, 0x10, places[i]);
      config_write(device, 0x18, ports[i % (sizeof ports / sizeof *ports)]);
    }
    for (uint32_t offset = 0; offset < 0x4000; offset += 0x74) {
      outw((uint16_t)(0xc000 + offset), (uint16_t)random32());
    }
    if (places[i] >= 0xc0000000u && places[i] < 0xe8000000u) {
      for (uint32_t offset = 0x104; offset < 0x8000; offset += 0x104) { /* not the first register: it may tell of a panic */
        read32(places[i] + (offset & ~3u));
        write32(places[i] + (offset & ~3u), random32());
      }
    }
  }
  /* Switched on and off, and moved, as fast as it goes. */
  for (unsigned round = rounds(400); round-- != 0;) {
    const unsigned device = 1 + random32() % 8;
    config_write(device, 4, random32() & 7);
    config_write(device, 0x10, 0xc0000000u + (random32() & 0xff8000));
    config_write(device, 0x14, one_of((const uint32_t[]){0, 0, 0, 1, 0x10, 0xffffffffu}, 6));
    config_write(device, 0x18, random32());
  }
}

static void msix_storm(const struct virtio* dev) {
  start(dev);
  const uint32_t table = dev->window + (config_read(dev->device, dev->msix + 4) & ~7u);
  const uint32_t pending = dev->window + (config_read(dev->device, dev->msix + 8) & ~7u);
  for (unsigned round = rounds(300); round-- != 0;) {
    config_write(dev->device, dev->msix, random32() & 0xc0000000u);
    for (unsigned i = 0; i < 8; ++i) {
      write32(table + (random32() & 0xffc), random32());
    }
    /* Mostly addresses of local APICs, else nothing is ever connected. */
    write32(table + 16 * (random32() & 3), 0xfee00000u | (random32() & 0xff000));
    write32(table + 16 * (random32() & 3) + 12, random32() & 1);
    write16(dev->common + CONFIG_VECTOR, (uint16_t)random32());
    write16(dev->common + QUEUE_SELECT, (uint16_t)(random32() & 7));
    write16(dev->common + QUEUE_VECTOR, (uint16_t)(random32() & 7));
    read32(pending + (random32() & 0xffc));
    queue_notify(dev, &queues[0]);
  }
}

static void window_noise(const struct virtio* dev) {
  start(dev);
  for (unsigned round = rounds(4000); round-- != 0;) {
    const uint32_t at = dev->window + (random32() & 0x7fff);
    switch (random32() % 6) {
      case 0: write8(at, (uint8_t)random32()); break;
      case 1: write16(at & ~1u, (uint16_t)random32()); break;
      case 2: write32(at & ~3u, random32()); break;
      case 3: read8(at); break;
      case 4: read16(at); break; /* across a register */
      default: read32(at & ~3u); break;
    }
    /* Registers at the beginning more often. */
    write32(dev->common + (random32() & 0x3c), random32());
    if ((round & 63) == 0) {
      start(dev);
    }
  }
}

/* One rule broken at a time, on every queue. */
static void broken_chains(const struct virtio* dev) {
  for (unsigned variant = 0; variant < 18; ++variant) {
    start(dev);
    for (unsigned i = 0; i < queue_count(dev); ++i) {
      struct queue* queue = &queues[i];
      uint16_t head = 0;
      struct queue table = *queue;
      table.table = INDIRECT_TABLE;
      switch (variant) {
        case 0: /* a loop */
          queue_describe(queue, 0, BUFFERS, 64, NEXT, 1);
          queue_describe(queue, 1, BUFFERS, 64, NEXT, 0);
          break;
        case 1: head = 0xffff; break;
        case 2: queue_describe(queue, 0, BUFFERS, 64, NEXT, 0xffff); break;
        case 3: queue_describe(queue, 0, 0xffffffffffffff00ull, 0xffffffffu, WRITE, 0); break;
        case 4: queue_describe(queue, 0, 0xfee00000u, 4096, WRITE, 0); break;
        case 5: queue_describe(queue, 0, dev->window, 4096, 0, 0); break;
        case 6: queue_describe(queue, 0, BUFFERS, 0xffffffffu, WRITE, 0); break;
        case 7: queue_describe(queue, 0, BUFFERS, 0, 0, 0); break;
        case 8: /* readable behind writable */
          queue_describe(queue, 0, BUFFERS, 64, NEXT | WRITE, 1);
          queue_describe(queue, 1, BUFFERS, 64, 0, 0);
          break;
        case 9: /* indirect, in a loop */
          queue_describe(queue, 0, INDIRECT_TABLE, 32, INDIRECT, 0);
          queue_describe(&table, 0, BUFFERS, 64, NEXT, 1);
          queue_describe(&table, 1, BUFFERS, 64, NEXT, 0);
          break;
        case 10: /* indirect in indirect */
          queue_describe(queue, 0, INDIRECT_TABLE, 16, INDIRECT, 0);
          queue_describe(&table, 0, INDIRECT_TABLE, 16, INDIRECT, 0);
          break;
        case 11: queue_describe(queue, 0, INDIRECT_TABLE, 17, INDIRECT, 0); break;
        case 12: queue_describe(queue, 0, 0xf0000000u, 160, INDIRECT, 0); break;
        case 13: queue_describe(queue, 0, INDIRECT_TABLE, 0xfffffff0u, INDIRECT, 0); break;
        case 14: /* more available than the queue holds */
          queue->available = 1000;
          break;
        case 15: /* the rings themselves as buffers */
          queue_describe(queue, 0, queue->device_ring, 4096, WRITE, 0);
          break;
        case 16:
          queue_describe(queue, 0, queue->table, 4096, NEXT, 1);
          queue_describe(queue, 1, queue->driver_ring, 4096, WRITE, 0);
          break;
        default: /* the same chain everywhere in the ring */
          queue_describe(queue, 0, BUFFERS, 4096, NEXT, 1);
          queue_describe(queue, 1, BUFFERS + 4096, 4096, WRITE, 0);
          for (unsigned j = 0; j < 2 * QUEUE_SIZE_USED; ++j) {
            queue_offer(queue, 0);
          }
          break;
      }
      queue_offer(queue, head);
      queue_notify(dev, queue);
    }
    read8(dev->common + DEVICE_STATUS);
  }
  /* Queues where no memory is, or of no size. */
  static const uint32_t places[] = {0xfffffff0u, 0xc0000000u, 0xfee00000u, 0x7fffff8u, 0x10000008u, 1, 0};
  for (unsigned i = 0; i < sizeof places / sizeof *places; ++i) {
    virtio_agree(dev);
    struct queue queue = {0, (uint16_t)random32(), 0, places[i], places[(i + 1) % 7], places[(i + 2) % 7]};
    queue_place(dev, &queue);
    write8(dev->common + DEVICE_STATUS, 15);
    queue_notify(dev, &queue);
  }
}

static void notify_storm(const struct virtio* dev) {
  start(dev);
  for (unsigned round = rounds(8000); round-- != 0;) {
    write16(dev->notify + (random32() & 7) * dev->notify_multiplier, (uint16_t)random32());
  }
  for (unsigned round = rounds(500); round-- != 0;) {
    write32(dev->notify + (random32() & 0x1ffc), random32());
  }
  for (unsigned round = rounds(8000); round-- != 0;) {
    outw((uint16_t)(dev->notify_port + (random32() & 7) * dev->notify_multiplier), (uint16_t)random32());
  }
  for (unsigned round = rounds(500); round-- != 0;) {
    outb((uint16_t)(dev->notify_port + (random32() & 0x3f)), (uint8_t)random32());
    outl((uint16_t)(0xc000 + (random32() & 0x3ffc)), random32());
  }
}

/* Requests under way while the driver resets the device, or lets the machine be reset. */
static void resets(const struct virtio* dev) {
  for (unsigned round = rounds(60); round-- != 0;) {
    start(dev);
    for (unsigned i = 0; i < queue_count(dev); ++i) {
      for (unsigned j = 0; j < 4; ++j) {
        const uint16_t head = (uint16_t)(3 * j);
        const uint32_t buffer = BUFFERS + (i * 16 + j) * 8192;
        write32(buffer, random32() & 7); /* a type that a block device may know */
        write32(buffer + 8, random32() & 15);
        write32(buffer + 12, 0);
        queue_describe(&queues[i], head, buffer, 16, NEXT, (uint16_t)(head + 1));
        queue_describe(&queues[i], head + 1u, buffer + 512, 4096, NEXT | (round & 1 ? WRITE : 0), (uint16_t)(head + 2));
        queue_describe(&queues[i], head + 2u, buffer + 16, 1, WRITE, 0);
        queue_offer(&queues[i], head);
      }
      queue_notify(dev, &queues[i]);
    }
    if (!virtio_reset(dev)) {
      put("does not reset\n");
    }
  }
}

/* Queues moved, resized and switched off while they run. */
static void moves(const struct virtio* dev) {
  start(dev);
  for (unsigned round = rounds(400); round-- != 0;) {
    struct queue* queue = &queues[random32() % (queue_count(dev) == 0 ? 1 : queue_count(dev))];
    queue_describe(queue, 0, BUFFERS, 64, NEXT, 1);
    queue_describe(queue, 1, BUFFERS + 4096, 512, WRITE, 0);
    queue_offer(queue, 0);
    queue_notify(dev, queue);
    write16(dev->common + QUEUE_SELECT, queue->index);
    write16(dev->common + QUEUE_SIZE, (uint16_t)random32());
    write32(dev->common + QUEUE_DESC + (random32() & 0x1c), random32());
    write16(dev->common + QUEUE_ENABLE, (uint16_t)(random32() & 1));
    write32(dev->common + DRIVER_FEATURE_SELECT, random32() & 1);
    write32(dev->common + DRIVER_FEATURE, random32());
    write8(dev->common + DEVICE_STATUS, 15);
  }
}

/* Right chains of random bytes: what each device makes of them is its own parser's business. */
static void noise(const struct virtio* dev) {
  if (dev->type == 5) {
    return; /* a balloon would take this program's own pages: see lies */
  }
  start(dev);
  for (unsigned round = rounds(250); round-- != 0;) {
    for (unsigned i = 0; i < queue_count(dev); ++i) {
      struct queue* queue = &queues[i];
      uint16_t head = (uint16_t)(random32() % 12);
      const unsigned parts = 1 + random32() % 4;
      const unsigned readable = random32() % (parts + 1);
      for (unsigned part = 0; part < parts; ++part) {
        const uint32_t buffer = BUFFERS + (random32() & 0xfff00);
        for (unsigned word = 0; word < 12; ++word) {
          write32(buffer + 4 * word, random32() & (random32() & 1 ? 0xffffffffu : 7));
        }
        queue_describe(queue, head + part, buffer, random32() & (random32() & 1 ? 0x3f : 0x1fff),
                       (uint16_t)((part + 1 < parts ? NEXT : 0) | (part >= readable ? WRITE : 0)),
                       (uint16_t)(head + part + 1));
      }
      queue_offer(queue, head);
      queue_notify(dev, queue);
    }
    if ((random32() & 7) == 0) {
      write32(dev->config + (random32() & 0xfc), random32());
      read32(dev->config + (random32() & 0xfc));
    }
    if (read8(dev->common + DEVICE_STATUS) & 64) {
      start(dev);
    }
  }
}

/* A chain of one readable and, unless it is empty, one writable buffer. */
static void tell(const struct virtio* dev, unsigned index, uint32_t buffer, uint32_t bytes, uint32_t room) {
  struct queue* queue = &queues[index];
  const uint16_t head = (uint16_t)(queue->available * 2 % QUEUE_SIZE_USED);
  queue_describe(queue, head, buffer, bytes, room != 0 ? NEXT : 0, (uint16_t)(head + 1));
  queue_describe(queue, head + 1u, buffer + 0x8000, room, WRITE, 0);
  queue_offer(queue, head);
  queue_notify(dev, queue);
}

/* Packets of connections that are not, of others, with lengths and credit that cannot be (virtio 1.2, 5.10.6). */
static void vsock_lies(const struct virtio* dev, uint32_t packet, unsigned round) {
  static const uint32_t cids[] = {3, 3, 3, 2, 0, 1, 0xffffffffu, 4};
  static const uint32_t ports[] = {1, 2, 99, 0, 0xffffffffu, 1024};
  static const uint32_t sizes[] = {0, 0, 64, 4096, 0xffffffffu, 0x7fffffffu, 65537};
  static const uint32_t credits[] = {0, 1, 65536, 0xffffffffu, 0x80000000u};
  write32(packet, one_of(cids, 8));
  write32(packet + 4, random32() % 8 == 0);
  write32(packet + 8, random32() % 8 == 0 ? one_of(cids, 8) : 2);
  write32(packet + 12, random32() % 8 == 0);
  write32(packet + 16, one_of(ports, 6));
  write32(packet + 20, one_of(ports, 6));
  write32(packet + 24, one_of(sizes, 7));
  write16(packet + 28, random32() % 8 == 0 ? (uint16_t)random32() : 1);
  write16(packet + 30, (uint16_t)(round % 10)); /* every operation, and some that are none */
  write32(packet + 32, random32() & 7);
  write32(packet + 36, one_of(credits, 5));
  write32(packet + 40, one_of(credits, 5));
  tell(dev, 1, packet, 44 + random32() % 200, 0);
  queue_describe(&queues[0], 0, BUFFERS + 0x80000, random32() % 100, WRITE, 0);
  queue_offer(&queues[0], 0);
  queue_notify(dev, &queues[0]);
}

/* Pages that are not memory, the same ones again and again, ranges that overflow, sizes that are not true. Those that
 * are memory are not this program's. */
static void balloon_lies(const struct virtio* dev, uint32_t list) {
  static const uint32_t pages[] = {0x1000, 0x1000, 0x3fff, 0x4000, 0xc0000, 0xfee00, 0xfffff, 0x100000, 0xffffffffu};
  for (unsigned i = 0; i < 64; ++i) {
    write32(list + 4 * i, random32() & 1 ? one_of(pages, 9) : 0x1000 + random32() % 0x3000);
  }
  tell(dev, random32() & 1, list, random32() % 257, 0);
  write32(dev->config + 4, random32());
  if (queue_count(dev) > 4) {
    static const uint64_t places[] = {0x1000000, 0x3fff000, 0xfffffffffffff000ull, 0xc0000000, 0xfee00000, 0x1000001};
    queue_describe(&queues[4], 0, places[random32() % 6], random32() & 1 ? 0xffffffffu : 0x400000, WRITE, 0);
    queue_offer(&queues[4], 0);
    queue_notify(dev, &queues[4]);
  }
}

/* Control messages of ports that are not, and of kinds that only the device sends. */
static void console_lies(const struct virtio* dev, uint32_t message, unsigned round) {
  write32(message, random32() & 1 ? random32() % 4 : random32());
  write16(message + 4, (uint16_t)(round % 10)); /* every event, and some that are none */
  write16(message + 6, (uint16_t)(random32() & 3));
  tell(dev, 3, message, random32() % 12, 0);
  tell(dev, random32() & 1 ? 1 : 5, message, random32() % 5000, 0);
  write32(dev->config + (random32() & 12), random32());
}

/* Frames whose header promises what is not there, and commands of the control queue with sizes of their own. */
static void net_lies(const struct virtio* dev, uint32_t frame) {
  const unsigned queue = random32() & 1 ? 1 : queue_count(dev) - 1;
  write32(frame, queue == 1 ? random32() & 0x0000ff01u : random32() & 0x0303);
  write32(frame + 4, random32());
  write32(frame + 8, random32());
  tell(dev, queue, frame, random32() % 3000, random32() & 1);
  queue_describe(&queues[0], 0, BUFFERS + 0x80000, random32() % 20, WRITE, 0);
  queue_offer(&queues[0], 0);
  queue_notify(dev, &queues[0]);
}

/* What only this kind of device understands, and none of it true. */
static void lies(const struct virtio* dev) {
  start(dev);
  for (unsigned round = rounds(300); round-- != 0;) {
    const uint32_t buffer = BUFFERS + (round & 7) * 0x10000;
    switch (dev->type) {
      case 1: net_lies(dev, buffer); break;
      case 3: console_lies(dev, buffer, round); break;
      case 5: balloon_lies(dev, buffer); break;
      case 19: vsock_lies(dev, buffer, round); break;
      default: return;
    }
    if (read8(dev->common + DEVICE_STATUS) & 64) {
      start(dev);
    }
  }
}

/* Tells of a crash again and again, and that a kernel of its own takes over: the VM goes on. */
static void panics(void) {
  for (unsigned device = 1; device < DEVICES; ++device) {
    if (config_read(device, 0) == 0x00111b36) {
      config_write(device, 4, 7);
      const uint32_t at = config_read(device, 0x10) & ~15u;
      for (unsigned round = rounds(200000); round-- != 0;) {
        write8(at, 2);
      }
    }
  }
}

/* Drivers that come and go: all devices are brought up, with a request under way where they take any, and then each is
 * reset and brought up again in turns, while the others go on. */
static void bring_up(const struct virtio* dev, unsigned place) {
  const uint32_t buffer = REBOUND_BUFFERS + place * QUEUE_BYTES;
  start_in(dev, REBOUND_QUEUES + place * QUEUES * QUEUE_BYTES);
  for (unsigned i = 0; i < queue_count(dev); ++i) {
    if (dev->type == 2) { /* the first sector is read */
      write32(buffer, 0);
      write32(buffer + 4, 0);
      write32(buffer + 8, 0);
      write32(buffer + 12, 0);
      queue_describe(&queues[i], 0, buffer, 16, NEXT, 1);
      queue_describe(&queues[i], 1, buffer + 512, 512, NEXT | WRITE, 2);
      queue_describe(&queues[i], 2, buffer + 1024, 1, WRITE, 0);
      queue_offer(&queues[i], 0);
    }
    queue_notify(dev, &queues[i]);
  }
}

static void rebinds(void) {
  static struct virtio devices[DEVICES];
  unsigned count = 0;
  for (unsigned device = 0; device < DEVICES; ++device) {
    if (is_there(device) && find_virtio(device, &devices[count])) {
      put("virtio ");
      put_hex(devices[count].type);
      put("\n");
      bring_up(&devices[count], count);
      ++count;
    }
  }
  /* Long enough for somebody to look, on a fast machine too; where there are many of them it takes long anyway. */
  for (unsigned round = rounds(count < 12 ? 400 : 16); is_endless || round-- != 0;) {
    for (unsigned i = 0; i < count; ++i) {
      if (!virtio_reset(&devices[i])) {
        put("does not reset\n");
      }
      bring_up(&devices[i], i);
    }
  }
}

/* The last sector of a disk is written, and waited for. */
static void write_last(const struct virtio* dev) {
  if (dev->type != 2) {
    return;
  }
  start(dev);
  struct queue* queue = &queues[0];
  const uint64_t sector = (read32(dev->config) | (uint64_t)read32(dev->config + 4) << 32) - 1; /* virtio 1.2, 5.2.4 */
  write32(BUFFERS, 1);
  write32(BUFFERS + 4, 0);
  write32(BUFFERS + 8, (uint32_t)sector);
  write32(BUFFERS + 12, (uint32_t)(sector >> 32));
  memset((void*)(BUFFERS + 512), 'x', 512);
  write8(BUFFERS + 1024, 0xff);
  queue_describe(queue, 0, BUFFERS, 16, NEXT, 1);
  queue_describe(queue, 1, BUFFERS + 512, 512, NEXT, 2);
  queue_describe(queue, 2, BUFFERS + 1024, 1, WRITE, 0);
  queue_offer(queue, 0);
  queue_notify(dev, queue);
  while (read16(queue->device_ring + 2) == 0) {
  }
  put(read8(BUFFERS + 1024) == 0 ? "written\n" : "failed\n");
}

int main(const struct start_info* info) {
  const char* what = (const char*)(uint32_t)info->command_line;
  const char* more = what;
  while (*more != 0 && *more != ' ') {
    ++more;
  }
  is_short = *more == ' ' && is(more + 1, "short");
  is_endless = *more == ' ' && is(more + 1, "forever");
  if (is(what, "pci")) {
    pci_garbage();
  } else if (is(what, "bars")) {
    bars_anywhere();
  } else if (is(what, "msix")) {
    each_virtio(msix_storm);
  } else if (is(what, "window")) {
    each_virtio(window_noise);
  } else if (is(what, "chains")) {
    each_virtio(broken_chains);
  } else if (is(what, "storm")) {
    each_virtio(notify_storm);
  } else if (is(what, "resets")) {
    each_virtio(resets);
  } else if (is(what, "moves")) {
    each_virtio(moves);
  } else if (is(what, "noise")) {
    each_virtio(noise);
  } else if (is(what, "lies")) {
    each_virtio(lies);
  } else if (is(what, "panics")) {
    panics();
  } else if (is(what, "rebinds")) {
    rebinds();
  } else if (is(what, "write")) {
    each_virtio(write_last);
  } else {
    put("no such attack\n");
    return 1;
  }
  put("done\n");
  return 0;
}
