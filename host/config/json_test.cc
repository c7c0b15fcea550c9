#include "host/config/json.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>

#include "host/config/annotations.h"
#include "vmmhost/error.h"
#include "vmmhost/schema/host.capnp.h"
#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::config {
namespace {

class Parsed {
 public:
  explicit Parsed(std::string_view text) : root_(message_.initRoot<schema::VmConfig>()) {
    parseJson("vm.json", text, root_);
  }
  schema::VmConfig::Reader get() const { return root_.asReader(); }

 private:
  capnp::MallocMessageBuilder message_;
  schema::VmConfig::Builder root_;
};

// The message of the refusal; empty if the text was taken.
std::string refusal(std::string_view text) {
  try {
    Parsed parsed(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.message();
  }
  return {};
}

template <typename Root>
std::string refusalFor(std::string_view text) {
  capnp::MallocMessageBuilder message;
  try {
    parseJson("x", text, message.initRoot<Root>());
  } catch (const Error& error) {
    return error.message();
  }
  return {};
}

void expectContains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "found: " << text << "\nexpected in it: " << part;
}

TEST(Json, annotationIds_areThoseOfTheSchema) {
  const auto name = [](std::uint64_t id, const capnp::_::RawSchema& schema) {
    EXPECT_EQ(schema.id, id);
    const auto node =
        capnp::readMessageUnchecked<capnp::schema::Node>(reinterpret_cast<const capnp::word*>(schema.encodedNode));
    return std::string(node.getDisplayName().cStr());
  };
  expectContains(name(kSinceAnnotation, capnp::schemas::s_d63fe621ece484ae), ":since");
  expectContains(name(kKeptByHostAnnotation, capnp::schemas::s_d53aac163e7c5f0b), ":keptByHost");
  expectContains(name(kHostOnlyAnnotation, capnp::schemas::s_87f8b240af97fc9e), ":hostOnly");
  expectContains(name(kByteSizeAnnotation, capnp::schemas::s_cfefc1bcfd7fd327), ":byteSize");
  expectContains(name(kTextFormAnnotation, capnp::schemas::s_83a33f00dbad3223), ":textForm");
}

TEST(Json, everyKindOfMember_isRead) {
  const Parsed parsed(R"({
    "name": "web", "boot": {"kernel": "vmlinux", "initrd": {"path": "i.gz"}, "cmdline": "caf\u00e9 \ud83d\udc27"},
    "cpus": {"count": 4}, "memory": {"size": "2GiB", "maxSize": 8589934592, "shared": true},
    "disks": [{"file": "a.img"}, {"file": "b.img", "readOnly": true, "format": "qcow2", "cache": "direct"}],
    "nics": [{"attachment": {"network": "lan"}}, {"attachment": {"none": null}}, {}],
    "consoles": [], "vsock": {}, "rng": {"enabled": false},
    "platform": {"options": [{"name": "a", "value": "b"}]}})");
  const auto config = parsed.get();
  EXPECT_EQ(config.getName(), "web");
  EXPECT_EQ(config.getBoot().getKernel().getPath(), "vmlinux");
  EXPECT_EQ(config.getBoot().getInitrd().getPath(), "i.gz");
  EXPECT_EQ(config.getBoot().getCmdline(), "caf\xc3\xa9 \xf0\x9f\x90\xa7");
  EXPECT_EQ(config.getCpus().getCount(), 4u);
  EXPECT_EQ(config.getMemory().getSize(), std::uint64_t{2} << 30);
  EXPECT_EQ(config.getMemory().getMaxSize(), std::uint64_t{8} << 30);
  EXPECT_TRUE(config.getMemory().getShared());
  ASSERT_EQ(config.getDisks().size(), 2u);
  EXPECT_FALSE(config.getDisks()[0].getReadOnly());
  EXPECT_EQ(config.getDisks()[1].getFile().getPath(), "b.img");
  EXPECT_EQ(config.getDisks()[1].getFormat(), schema::Disk::Format::QCOW2);
  EXPECT_EQ(config.getDisks()[1].getCache(), schema::Disk::Cache::DIRECT);
  ASSERT_EQ(config.getNics().size(), 3u);
  EXPECT_EQ(config.getNics()[0].getAttachment().getNetwork(), "lan");
  EXPECT_TRUE(config.getNics()[1].getAttachment().isNone());
  EXPECT_TRUE(config.hasVsock());
  EXPECT_TRUE(config.getVsock().getEnabled());
  EXPECT_FALSE(config.hasBalloon());
  EXPECT_FALSE(config.getRng().getEnabled());
  EXPECT_EQ(config.getPlatform().getOptions()[0].getValue(), "b");
}

TEST(Json, roundTrip_isExact) {
  const char* text = R"({"name":"n","boot":{"kernel":"k","cmdline":"\"q\" \\ é"},"cpus":{"count":3},)"
                     R"("memory":{"size":9007199254740993},"disks":[{"file":"d","readOnly":true,"cache":"unsafe"},{}],)"
                     R"("nics":[{"attachment":{"network":""}},{"mac":"x","attachment":{"tap":"t0"}}],)"
                     R"("vsock":{"cid":4294967295},"rng":{"enabled":false},"balloon":{}})";
  const Parsed once(text);
  const std::string written = writeJson(once.get(), {.pretty = false});
  EXPECT_EQ(written, text);
  const Parsed twice(writeJson(once.get()));
  EXPECT_EQ(writeJson(twice.get(), {.pretty = false}), text);
}

TEST(Json, defaults_areWrittenOnlyWhenAskedFor) {
  const Parsed parsed(R"({"cpus":{},"memory":{"size":536870912},"nics":[{}]})");
  EXPECT_EQ(writeJson(parsed.get(), {.pretty = false}), R"({"cpus":{},"memory":{},"nics":[{}]})");
  const std::string all = writeJson(parsed.get(), {.pretty = false, .withDefaults = true});
  EXPECT_EQ(all, R"({"name":"","cpus":{"count":1,"max":0,"threadsPerCore":1,"coresPerSocket":0},)"
                 R"("memory":{"size":536870912,"maxSize":0,"shared":false,"hugePages":false},"disks":[],)"
                 R"("nics":[{"id":"","mac":"","mtu":0,"attachment":{"none":null}}],"consoles":[],"shares":[]})");
  EXPECT_EQ(refusal(all), "");
}

TEST(Json, hostOnlyMembers_areNeitherReadNorWritten) {
  EXPECT_EQ(refusal(R"({"boot":{"kernel":{"path":"k","resource":7}}})"),
            "vm.json: boot.kernel.resource: is filled in by the host and cannot be configured");
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config.initBoot().initKernel().setResource(7);
  EXPECT_EQ(writeJson(config.asReader(), {.pretty = false}), R"({"boot":{"kernel":""}})");
}

TEST(Json, unknownMembers_areRefusedByPath) {
  EXPECT_EQ(refusal(R"({"disk":[]})"), "vm.json: disk: there is no such member");
  EXPECT_EQ(refusal(R"({"disks":[{},{"file":"a","readonly":true}]})"),
            "vm.json: disks[1].readonly: there is no such member");
  EXPECT_EQ(refusal(R"({"nics":[{"attachment":{"bridge":"b"}}]})"),
            "vm.json: nics[0].attachment.bridge: there is no such member");
  EXPECT_EQ(refusal("{\"a\\u001b[2J\\u0000\":1}"), "vm.json: a\\x1b[2J\\x00: there is no such member");
  EXPECT_EQ(refusal("{\"name\\u0000\":\"\"}"), "vm.json: name\\x00: there is no such member");
}

TEST(Json, hint_namesTheMembersThereAre) {
  try {
    Parsed parsed(R"({"boot":{"kernel":{"file":"x"}}})");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.hint(), "members here: path");
  }
}

TEST(Json, wrongTypes_areRefusedByPath) {
  EXPECT_EQ(refusal(R"({"disks":[{},{"readOnly":"yes"}]})"),
            "vm.json: disks[1].readOnly: expected true or false, found a string");
  EXPECT_EQ(refusal(R"({"disks":[{"readOnly":0}]})"),
            "vm.json: disks[0].readOnly: expected true or false, found the number 0");
  EXPECT_EQ(refusal(R"({"cpus":{"count":"4"}})"), "vm.json: cpus.count: expected an integer, found a string");
  EXPECT_EQ(refusal(R"({"cpus":{"count":true}})"), "vm.json: cpus.count: expected an integer, found true");
  EXPECT_EQ(refusal(R"({"cpus":4})"), "vm.json: cpus: expected an object, found the number 4");
  EXPECT_EQ(refusal(R"({"cpus":null})"), "vm.json: cpus: expected an object, found null");
  EXPECT_EQ(refusal(R"({"cpus":"4"})"), "vm.json: cpus: expected an object, found a string");
  EXPECT_EQ(refusal(R"({"cpus":[]})"), "vm.json: cpus: expected an object, found an array");
  EXPECT_EQ(refusal(R"({"disks":{}})"), "vm.json: disks: expected an array, found an object");
  EXPECT_EQ(refusal(R"({"disks":["a.img"]})"), "vm.json: disks[0]: expected an object, found a string");
  EXPECT_EQ(refusal(R"({"disks":[[]]})"), "vm.json: disks[0]: expected an object, found an array");
  EXPECT_EQ(refusal(R"({"name":5})"), "vm.json: name: expected a string, found the number 5");
  EXPECT_EQ(refusal(R"({"name":-5})"), "vm.json: name: expected a string, found the number -5");
  EXPECT_EQ(refusal(R"({"name":{}})"), "vm.json: name: expected a string, found an object");
  EXPECT_EQ(refusal(R"({"boot":{"kernel":5}})"),
            "vm.json: boot.kernel: expected a string or an object, found the number 5");
  EXPECT_EQ(refusal(R"({"nics":[{"attachment":{"none":true}}]})"),
            "vm.json: nics[0].attachment.none: expected null, found true");
  EXPECT_EQ(refusal(R"([])"), "vm.json: expected an object, found an array");
  EXPECT_EQ(refusal(R"("x")"), "vm.json: expected an object, found a string");
  EXPECT_EQ(refusal(R"(1)"), "vm.json: expected an object, found a number");
  EXPECT_EQ(refusal(R"(null)"), "vm.json: expected an object, found null");
}

TEST(Json, integers_areExactOrRefused) {
  EXPECT_EQ(Parsed(R"({"memory":{"size":9007199254740993}})").get().getMemory().getSize(), 9007199254740993u);
  EXPECT_EQ(Parsed(R"({"memory":{"size":18446744073709551615}})").get().getMemory().getSize(), UINT64_MAX);
  EXPECT_EQ(Parsed(R"({"cpus":{"max":4294967295}})").get().getCpus().getMax(), UINT32_MAX);
  EXPECT_EQ(Parsed(R"({"cpus":{"max":-0}})").get().getCpus().getMax(), 0u);
  EXPECT_EQ(refusal(R"({"memory":{"size":18446744073709551616}})"),
            "vm.json: memory.size: the number 18446744073709551616 is out of range");
  EXPECT_EQ(refusal(R"({"cpus":{"count":4294967296}})"),
            "vm.json: cpus.count: the number 4294967296 is out of range; expected 0 to 4294967295");
  EXPECT_EQ(refusal(R"({"cpus":{"count":-1}})"),
            "vm.json: cpus.count: the number -1 is out of range; expected 0 to 4294967295");
  EXPECT_EQ(refusal(R"({"nics":[{"mtu":65536}]})"),
            "vm.json: nics[0].mtu: the number 65536 is out of range; expected 0 to 65535");
  EXPECT_EQ(refusal(R"({"cpus":{"count":1.0}})"), "vm.json: cpus.count: expected an integer, found the number 1.0");
  EXPECT_EQ(refusal(R"({"cpus":{"count":1e0}})"), "vm.json: cpus.count: expected an integer, found the number 1e0");
  EXPECT_EQ(refusal(R"({"cpus":{"count":-0.0}})"), "vm.json: cpus.count: expected an integer, found the number -0.0");
  EXPECT_EQ(refusal(R"({"name":1.5})"), "vm.json: name: expected a string, found the number 1.5");
}

TEST(Json, signedIntegers_useTheirWholeRange) {
  capnp::MallocMessageBuilder message;
  auto outcome = message.initRoot<schema::Outcome>();
  parseJson("x", R"({"exitCode":-2147483648})", outcome);
  EXPECT_EQ(outcome.getExitCode(), INT32_MIN);
  EXPECT_EQ(refusalFor<schema::Outcome>(R"({"exitCode":-2147483649})"),
            "x: exitCode: the number -2147483649 is out of range; expected -2147483648 to 2147483647");
  EXPECT_EQ(refusalFor<schema::Outcome>(R"({"exitCode":2147483648})"),
            "x: exitCode: the number 2147483648 is out of range; expected -2147483648 to 2147483647");
  EXPECT_EQ(refusalFor<schema::VmInfo>(R"({"startedUnixMs":-9223372036854775808})"), "");
  EXPECT_NE(refusalFor<schema::VmInfo>(R"({"startedUnixMs":-9223372036854775809})"), "");
  EXPECT_NE(refusalFor<schema::VmInfo>(R"({"startedUnixMs":9223372036854775808})"), "");
}

TEST(Json, numbersThatJsonDoesNotHave_areRefused) {
  for (const char* number : {"1e400", "-1e400", "NaN", "nan", "Infinity", "0x10", "01", "+1", "1.", ".5", "1_000"}) {
    const std::string message = refusal(std::string(R"({"memory":{"size":)") + number + "}}");
    expectContains(message, "vm.json:1:");
    expectContains(message, ": memory.size: ");
  }
}

TEST(Json, byteSizes_takeUnitsOnlyWhereTheyAreSizes) {
  EXPECT_EQ(Parsed(R"({"memory":{"size":"1048576"}})").get().getMemory().getSize(), 1048576u);
  EXPECT_EQ(Parsed(R"({"balloon":{"targetSize":"1G"}})").get().getBalloon().getTargetSize(), 1u << 30);
  EXPECT_EQ(refusal(R"({"memory":{"size":"lots"}})"), "vm.json: memory.size: expected a size, found \"lots\"");
  EXPECT_EQ(refusal(R"({"memory":{"size":"0x10"}})"), "vm.json: memory.size: expected a size, found \"0x10\"");
  EXPECT_EQ(refusal(R"({"memory":{"size":true}})"),
            "vm.json: memory.size: expected a number of bytes or a size such as \"512M\", found true");
  EXPECT_EQ(refusal(R"({"vsock":{"cid":"4K"}})"), "vm.json: vsock.cid: expected an integer, found a string");
}

TEST(ByteSize, formsAndLimits) {
  EXPECT_EQ(parseByteSize("x", "0"), 0u);
  EXPECT_EQ(parseByteSize("x", "4K"), 4096u);
  EXPECT_EQ(parseByteSize("x", "4k"), 4096u);
  EXPECT_EQ(parseByteSize("x", "512M"), 536870912u);
  EXPECT_EQ(parseByteSize("x", "512MB"), 536870912u);
  EXPECT_EQ(parseByteSize("x", "512MiB"), 536870912u);
  EXPECT_EQ(parseByteSize("x", "3T"), std::uint64_t{3} << 40);
  EXPECT_EQ(parseByteSize("x", "16777215T"), std::uint64_t{16777215} << 40);
  for (const char* bad :
       {"", "M", "-1", "+1", " 1", "1 ", "1.5G", "1e3", "512MM", "512Mi", "512b", "1P", "0x1", "1iB"}) {
    EXPECT_THROW(parseByteSize("x", bad), Error) << bad;
  }
  for (const char* big : {"16777216T", "18446744073709551616", "99999999999999999999999K"}) {
    try {
      parseByteSize("--memory", big);
      FAIL() << big;
    } catch (const Error& error) {
      EXPECT_EQ(error.message(), "--memory: the size \"" + std::string(big) + "\" does not fit 64 bits");
    }
  }
}

TEST(Json, duplicateMembers_areRefusedAtAnyDepth) {
  EXPECT_EQ(refusal(R"({"name":"a","name":"a"})"), "vm.json: name: is there twice");
  EXPECT_EQ(refusal(R"({"boot":{"kernel":{"path":"a","path":"b"}}})"), "vm.json: boot.kernel.path: is there twice");
  EXPECT_EQ(refusal(R"({"disks":[{},{},{"id":"a","file":"x","id":"b"}]})"), "vm.json: disks[2].id: is there twice");
  EXPECT_EQ(refusal(R"({"n\u0061me":"a","name":"b"})"), "vm.json: name: is there twice");
  EXPECT_EQ(refusal(R"({"disks":[{"id":"a"},{"id":"b"}]})"), "");
}

TEST(Json, errors_haveTheFieldThatTheyAreAbout) {
  const auto fieldOf = [](std::string_view text) {
    try {
      Parsed parsed(text);
    } catch (const Error& error) {
      return error.field();
    }
    return std::string("was taken");
  };
  EXPECT_EQ(fieldOf(R"({"disks":[{},{"id":7}]})"), "disks[1].id");
  EXPECT_EQ(fieldOf(R"({"memory":{"size":"much"}})"), "memory.size");
  EXPECT_EQ(fieldOf(R"({"cpus":{"cores":2}})"), "cpus.cores");
  EXPECT_EQ(fieldOf(R"({"boot":{"kernel":)"), "boot.kernel");
  EXPECT_EQ(fieldOf("[]"), "");
}

TEST(Json, unions_takeOneMember) {
  EXPECT_EQ(refusal(R"({"nics":[{"attachment":{"network":"a","tap":"b"}}]})"),
            "vm.json: nics[0].attachment.tap: only one member of this union can be given, and \"network\" is there "
            "already");
  EXPECT_EQ(refusal(R"({"nics":[{"attachment":{"none":null,"tap":"b"}}]})"),
            "vm.json: nics[0].attachment.tap: only one member of this union can be given, and \"none\" is there "
            "already");
}

TEST(Json, unknownEnumerants_areRefusedWithTheKnownOnes) {
  EXPECT_EQ(refusal(R"({"disks":[{"format":"vmdk"}]})"),
            "vm.json: disks[0].format: there is no \"vmdk\"; expected one of raw, qcow2");
  EXPECT_EQ(refusal(R"({"disks":[{"format":1}]})"), "vm.json: disks[0].format: expected a string, found the number 1");
}

TEST(Json, malformedText_isRefusedWithItsPlace) {
  expectContains(refusal(""), "vm.json:1:1: ");
  expectContains(refusal("{\n  \"name\": \"a\",\n  \"cpus\": }"), "vm.json:3:11: cpus: ");
  expectContains(refusal("{\"name\":\"a\"} x"), "vm.json:1:14: ");
  expectContains(refusal("{\"name\":\"a\""), "vm.json:1:");
  expectContains(refusal("{\"name\":\"a\",}"), "vm.json:1:");
  expectContains(refusal("{'name':1}"), "vm.json:1:2: ");
  expectContains(refusal("{/* */}"), "vm.json:1:");
  EXPECT_EQ(refusal(std::string_view("{}\n\0garbage", 11)), "vm.json:2:1: a NUL byte, which JSON cannot have");
}

TEST(Json, textThatIsNoText_isRefused) {
  for (const char* bytes : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xe2\x82", "\xf4\x90\x80\x80"}) {
    const std::string message = refusal(std::string("{\"name\":\"") + bytes + "\"}");
    expectContains(message, ": name: ");
    expectContains(message, "UTF-8");
    EXPECT_EQ(message.find(bytes), std::string::npos) << "the bytes themselves must not reach a terminal";
  }
  expectContains(refusal("{\"name\":\"\x1b[2J\"}"), "vm.json:1:10: name: ");
  expectContains(refusal("{\"name\":\"a\nb\"}"), "vm.json:");
  expectContains(refusal(R"({"name":"\ud800"})"), ": name: ");
  expectContains(refusal(R"({"name":"\udc00\ud800"})"), ": name: ");
  EXPECT_EQ(refusal(R"({"name":"a\u0000b"})"), "vm.json: name: text with a NUL character in it");
  EXPECT_EQ(refusal(R"({"boot":{"kernel":"a\u0000b"}})"), "vm.json: boot.kernel: text with a NUL character in it");
}

TEST(Json, deepNesting_isRefusedWithoutRecursion) {
  const std::string arrays(100000, '[');
  expectContains(refusal(arrays), "nested deeper than 64 levels");
  std::string objects;
  for (int level = 0; level < 100000; ++level) {
    objects += "{\"a\":";
  }
  expectContains(refusal(objects), "nested deeper than 64 levels");
  expectContains(refusal(objects), "vm.json: a.a.a.");
  EXPECT_EQ(refusal(R"({"cpus":)" + std::string(63, '[') + std::string(63, ']') + "}"),
            "vm.json: cpus: expected an object, found an array");
}

TEST(Json, size_isLimitedTo4MiB) {
  const std::size_t limit = std::size_t{4} << 20;
  std::string text = R"({"name":"a"})";
  text.resize(limit, ' ');
  EXPECT_EQ(refusal(text), "");
  text += ' ';
  EXPECT_EQ(refusal(text), "vm.json: JSON of 4194305 bytes is over the limit of 4 MiB");
}

TEST(Json, listLength_isLimited) {
  std::string text = R"({"disks":[{})";
  for (int count = 1; count < 65536; ++count) {
    text += ",{}";
  }
  EXPECT_EQ(Parsed(text + "]}").get().getDisks().size(), 65536u);
  EXPECT_EQ(refusal(text + ",{}]}"), "vm.json: disks[65536]: more than 65536 items in one list");
}

TEST(Json, sourceName_isShownEscaped) {
  capnp::MallocMessageBuilder message;
  try {
    parseJson("a\x1b]0;b", "[]", message.initRoot<schema::VmConfig>());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "a\\x1b]0;b: expected an object, found an array");
  }
}

TEST(Json, otherStructures_areWritten) {
  capnp::MallocMessageBuilder message;
  auto outcome = message.initRoot<schema::Outcome>();
  outcome.setKind(schema::EndKind::WORKER_DIED);
  outcome.setExitCode(-1);
  outcome.getWorkerExit().setSignal(9);
  outcome.initLastLog(1).set(0, "bad \xff bytes");
  const std::string written = writeJson(outcome.asReader(), {.pretty = false});
  EXPECT_EQ(written,
            "{\"kind\":\"workerDied\",\"exitCode\":-1,\"workerExit\":{\"signal\":9},"
            "\"lastLog\":[\"bad \xef\xbf\xbd bytes\"]}");
  capnp::MallocMessageBuilder again;
  auto back = again.initRoot<schema::Outcome>();
  parseJson("x", written, back);
  EXPECT_EQ(back.getWorkerExit().getSignal(), 9);
}

}  // namespace
}  // namespace vmmhost::config
