#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ipc/rpc/connection.h"

namespace vmmhost::rpc {
namespace {

const Error kWhole =
    Error(ErrorCode::kResourceExhausted, "disks[0].format: full", "a hint", true).withField("disks[0].format");

void expectWhole(const Error& error) {
  EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
  EXPECT_EQ(error.message(), "disks[0].format: full");
  EXPECT_EQ(error.hint(), "a hint");
  EXPECT_TRUE(error.retryable());
  EXPECT_EQ(error.field(), "disks[0].format");
}

// An error as a peer sends it.
Error received(unsigned code, const std::string& field = {}) {
  capnp::MallocMessageBuilder message;
  auto error = message.initRoot<schema::Error>();
  error.setCode(static_cast<schema::ErrorCode>(code));
  error.setMessage("a message");
  error.setField({field.c_str(), field.size()});
  return readError(error);
}

Error unpacked(const std::string& description) {
  return fromKj(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::heapString(description.c_str())));
}

TEST(ErrorCodec, wholeError_survivesTheSchemaAndAnException) {
  capnp::MallocMessageBuilder message;
  auto error = message.initRoot<schema::Error>();
  writeError(kWhole, error);
  expectWhole(readError(error));
  expectWhole(fromKj(toKj(kWhole)));
}

TEST(ErrorCodec, errorWithoutAField_hasNone) {
  capnp::MallocMessageBuilder message;
  auto error = message.initRoot<schema::Error>();
  const Error without(ErrorCode::kNotFound, "no");
  writeError(without, error);
  EXPECT_FALSE(error.hasField());  // so that JSON of it has no empty member
  EXPECT_EQ(readError(error).field(), "");
  EXPECT_EQ(fromKj(toKj(without)).field(), "");
}

TEST(ErrorCodec, codesOfAPeer_areThoseThatAPeerCanSay) {
  EXPECT_EQ(received(14).code(), ErrorCode::kInternal);
  EXPECT_EQ(received(15).code(), ErrorCode::kUnknown) << "only a client finds that its supervisor is gone";
  EXPECT_EQ(received(16).code(), ErrorCode::kUnknown);
  EXPECT_EQ(received(65535).code(), ErrorCode::kUnknown);
}

TEST(ErrorCodec, fieldOfAPeer_isShortAndPrintable) {
  const std::string longest(Error::kMaxFieldBytes, 'f');
  EXPECT_EQ(received(1, longest).field(), longest);
  const std::vector<std::string> hostile = {
      longest + 'f', "\x1b[2Jdisks",           "a\nb", std::string("a\0b", 3), "disks\x7f",
      "\xc3\xa9",    std::string(100'000, 'x')};
  for (const std::string& field : hostile) {
    EXPECT_EQ(received(1, field).field(), "") << field.substr(0, 20);
    EXPECT_EQ(received(1, field).message(), "a message") << "and the rest is as it was";
    EXPECT_EQ(kWhole.withField(field).field(), "") << field.substr(0, 20);
  }
}

// A client's own code has to come through its promises.
TEST(ErrorCodec, supervisorThatDied_survivesAnException) {
  const kj::Exception packed = toKj(Error(ErrorCode::kSupervisorDied, "gone"));
  EXPECT_EQ(packed.getType(), kj::Exception::Type::DISCONNECTED);
  EXPECT_EQ(fromKj(packed).code(), ErrorCode::kSupervisorDied);
  EXPECT_EQ(unpacked("vmmhost-error\x1f"
                     "16\x1f"
                     "0\x1fno\x1f")
                .code(),
            ErrorCode::kUnknown);
}

// As written before errors had a field, and as read then: the first four parts.
TEST(ErrorCodec, packedErrorsOfBothVersions_areRead) {
  const Error older = unpacked(
      "vmmhost-error\x1f"
      "2\x1f"
      "1\x1f"
      "a message\x1f"
      "a hint");
  EXPECT_EQ(older.code(), ErrorCode::kNotFound);
  EXPECT_EQ(older.message(), "a message");
  EXPECT_EQ(older.hint(), "a hint");
  EXPECT_TRUE(older.retryable());
  EXPECT_EQ(older.field(), "");
  const std::string newer = toKj(kWhole).getDescription().cStr();
  EXPECT_EQ(newer,
            "vmmhost-error\x1f"
            "10\x1f"
            "1\x1f"
            "disks[0].format: full\x1f"
            "a hint\x1f"
            "disks[0].format");
}

TEST(ErrorCodec, withMessage_keepsTheRest) {
  const Error changed = kWhole.withMessage("other");
  EXPECT_EQ(changed.message(), "other");
  EXPECT_STREQ(changed.what(), "other");
  expectWhole(changed.withMessage(kWhole.message()));
}

TEST(ErrorCodec, aboutField_leavesTheMoreExactField) {
  const auto fieldOf = [](const Error& thrown) {
    try {
      aboutField("disks[1]", [&] { throw thrown; });
    } catch (const Error& error) {
      return error.field();
    }
    return std::string("not thrown");
  };
  EXPECT_EQ(fieldOf(Error(ErrorCode::kNotFound, "no")), "disks[1]");
  EXPECT_EQ(fieldOf(kWhole), "disks[0].format");
  EXPECT_EQ(aboutField("x", [] { return 3; }), 3);
}

}  // namespace
}  // namespace vmmhost::rpc
