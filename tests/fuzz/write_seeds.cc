// write_seeds FOLDER: beginnings of corpora for targets whose inputs are no text, below FOLDER/TARGET/. Made from the
// definitions that the code itself uses, so that they stay right.
#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <elf.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "host/plugin/probe_result.h"
#include "host/vm/test_image.h"
#include "tests/hostile/flood/frames.h"
#include "vmmhost/schema/host.capnp.h"
#include "vmmhost/schema/worker.capnp.h"
#include "worker-kvm/boot/test_bzimage.h"

using namespace vmmhost;
using hostile::Bytes;
using hostile::operator+;

namespace {

std::filesystem::path top;

void write(const char* target, const char* name, const Bytes& bytes) {
  std::filesystem::create_directories(top / target);
  std::ofstream(top / target / name, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

Bytes prefixed(std::uint8_t first, const Bytes& rest) {
  return Bytes{first} + rest;
}

// Messages with their number of words in a byte, as rpc_input.h takes them apart.
Bytes framed(std::initializer_list<Bytes> messages) {
  Bytes bytes{1};
  for (const Bytes& message : messages) {
    bytes =
        bytes + Bytes{static_cast<std::uint8_t>(message.size() / 8 - 1)} + Bytes(message.begin() + 8, message.end());
  }
  return bytes;
}

void control() {
  const hostile::Door door = hostile::controlDoor();
  write("rpc_control", "raw", prefixed(0, hostile::bootstrap(0) + hostile::call(1, door, 0) + hostile::finish(1)));
  for (std::uint16_t method = 0; method <= 14; ++method) {
    write("rpc_control", ("method-" + std::to_string(method)).c_str(),
          framed({hostile::bootstrap(0), hostile::call(1, door, method), hostile::finish(1), hostile::finish(0)}));
  }
}

void fill(schema::VmConfig::Builder config) {
  config.setName("fuzzed");
  config.getCpus().setCount(2);
  config.getMemory().setSize(std::uint64_t{64} << 20);
  config.getBoot().getKernel().setPath("/kernel");
  config.getBoot().setCmdline("console=ttyS0");
  config.initDisks(1)[0].getFile().setPath("disk.img");
  config.initConsoles(1);
}

void worker() {
  const auto call = [](std::uint32_t id, std::uint16_t method, auto fillParams) {
    return hostile::message([&](auto root) {
      auto call = root.initCall();
      call.setQuestionId(id);
      call.setInterfaceId(capnp::typeId<schema::Worker>());
      call.setMethodId(method);
      call.initTarget().setImportedCap(0);
      fillParams(call.initParams().getContent());
    });
  };
  write("rpc_worker", "whole",
        framed({hostile::bootstrap(0),
                call(1, 0,
                     [](auto content) {
                       content.template initAs<schema::Worker::HelloParams>().initHost().setProtocolMajor(
                           schema::PROTOCOL_MAJOR);
                     }),
                call(2, 1, [](auto content) { content.template initAs<schema::Worker::ConfirmParams>(); }),
                call(3, 3,
                     [](auto content) { fill(content.template initAs<schema::Worker::CreateParams>().initConfig()); }),
                hostile::finish(1), hostile::finish(2)}));
}

void configurations() {
  capnp::MallocMessageBuilder config;
  fill(config.initRoot<schema::VmConfig>());
  const Bytes one = hostile::frame(config);
  write("vm_config", "config", Bytes(one.begin() + 8, one.end()));
  capnp::MallocMessageBuilder request;
  fill(request.initRoot<schema::LaunchRequest>().initConfig());
  const Bytes two = hostile::frame(request);
  write("vm_config", "launch-request", Bytes(two.begin() + 8, two.end()));
}

void plugins() {
  plugin::ProbeResult result;
  result.info.name = "good";
  result.info.usable = true;
  result.info.summary = "works";
  result.info.capabilities = {"disk", "pause"};
  result.watchedPaths = {"/usr/bin/qemu-system-x86_64"};
  result.configFields = {"nics.attachment.network"};
  const std::string usable = plugin::encodeProbeResult(result);
  result.info.error = Error(ErrorCode::kInternal, "crashed", "report it");
  const std::string failed = plugin::encodeProbeResult(result);
  write("plugin_output", "usable", prefixed(0, Bytes(usable.begin(), usable.end())));
  write("plugin_output", "failed", prefixed(0, Bytes(failed.begin(), failed.end())));
  result.info.name = std::string(32, '\x1b');  // what is shown of it takes more room
  const std::string unshowable = plugin::encodeProbeResult(result);
  write("plugin_output", "unshowable", prefixed(0, Bytes(unshowable.begin(), unshowable.end())));
}

template <typename FileHeader, typename ProgramHeader>
Bytes kernel(std::uint8_t fileClass, std::uint16_t machine) {
  struct Note {
    Elf32_Nhdr header{4, 8, 18};  // XEN_ELFNOTE_PHYS32_ENTRY
    char name[4] = {'X', 'e', 'n', '\0'};
    std::uint64_t entry = 0x100000;
  };
  struct File {
    FileHeader header{};
    ProgramHeader segments[2]{};
    Note note;
    std::uint8_t content[16]{};
  } file;
  std::memcpy(file.header.e_ident, ELFMAG, SELFMAG);
  file.header.e_ident[EI_CLASS] = fileClass;
  file.header.e_ident[EI_DATA] = ELFDATA2LSB;
  file.header.e_ident[EI_VERSION] = EV_CURRENT;
  file.header.e_type = ET_EXEC;
  file.header.e_machine = machine;
  file.header.e_entry = 0x100000;
  file.header.e_phoff = offsetof(File, segments);
  file.header.e_phentsize = sizeof(ProgramHeader);
  file.header.e_phnum = 2;
  file.segments[0].p_type = PT_LOAD;
  file.segments[0].p_offset = offsetof(File, content);
  file.segments[0].p_paddr = 0x100000;
  file.segments[0].p_filesz = sizeof file.content;
  file.segments[0].p_memsz = 64;
  file.segments[1].p_type = PT_NOTE;
  file.segments[1].p_offset = offsetof(File, note);
  file.segments[1].p_filesz = sizeof(Note);
  file.segments[1].p_memsz = sizeof(Note);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&file);
  return Bytes(bytes, bytes + sizeof file);
}

void kernels() {
  write("kernel_file", "elf64", kernel<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, EM_X86_64));
  write("kernel_file", "elf32", kernel<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, EM_386));
  const Bytes bzImage = kvm::boot::TestBzImage().bytes();
  write("kernel_file", "bzimage", bzImage);
  write("kernel_file", "bzimage-cut", Bytes(bzImage.begin(), bzImage.begin() + 0x210));
  Bytes qcow2(104);
  std::memcpy(qcow2.data(), "QFI\xfb\0\0\0\3", 8);
  write("kernel_file", "qcow2", qcow2);
}

void images() {
  const auto add = [](const char* name, auto change) {
    vm::TestImage image;
    change(image);
    const std::string header = image.header();
    write("image_header", name, Bytes(8) + Bytes(header.begin(), header.end()));
  };
  add("plain", [](vm::TestImage&) {});
  add("old", [](vm::TestImage& image) { image.version = 2; });
  add("small-clusters", [](vm::TestImage& image) { image.clusterBits = 9, image.refcountOrder = 6; });
  add("large", [](vm::TestImage& image) { image.clusterBits = 21, image.virtualBytes = std::uint64_t{1} << 50; });
  add("snapshots", [](vm::TestImage& image) { image.snapshots = 3; });
  add("dirty", [](vm::TestImage& image) { image.incompatible = 1 | 16, image.autoclear = 1; });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "write_seeds FOLDER\n");
    return 2;
  }
  top = argv[1];
  control();
  worker();
  configurations();
  plugins();
  kernels();
  images();
  return 0;
}
