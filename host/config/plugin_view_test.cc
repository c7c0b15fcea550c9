#include "host/config/plugin_view.h"

#include <capnp/message.h>
#include <capnp/schema-parser.h>
#include <gtest/gtest.h>
#include <kj/filesystem.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "host/config/annotations.h"
#include "host/config/json.h"
#include "vmmhost/error.h"
#include "vmmhost/plugin.h"

namespace vmmhost::config {
namespace {

using capnp::DynamicStruct;
using capnp::StructSchema;

// Fields of every kind, of three ages. The annotations are those of vm.capnp by their numbers.
constexpr char kSchema[] = R"(@0xd5f2c4d3a7b19eff;
annotation since @0xd63fe621ece484ae (field, union, group, enumerant) :UInt16;
annotation keptByHost @0xd53aac163e7c5f0b (field) :Void;

struct Config {
  old @0 :Text $since(1);
  text @1 :Text = "so" $since(2);
  number @2 :UInt32 = 7 $since(2);
  flag @3 :Bool = true $since(3);
  data @4 :Data $since(2);
  texts @5 :List(Text) $since(2);
  mode @6 :Mode $since(1);
  modes @7 :List(Mode) $since(1);
  newMode @8 :Mode = slow $since(2);
  inner @9 :Inner $since(1);
  newInner @10 :Inner $since(2);
  inners @11 :List(Inner) $since(1);
  lists @12 :List(List(Inner)) $since(1);
  choice :union $since(1) {
    none @13 :Void $since(1);
    word @14 :Text $since(1);
    late @15 :Void $since(2);
    pair :group $since(3) { left @16 :Int8 $since(3); right @17 :Int8 $since(3); }
  }
  first :union $since(2) {
    count @18 :UInt16 $since(2);
    other @19 :Void $since(2);
  }
  group :group $since(2) { a @20 :Bool $since(2); b @21 :Float64 $since(3); }
  kept @22 :Inner $keptByHost $since(3);
  ageless @23 :Bool;
}
struct Inner {
  old @0 :Bool $since(1);
  late @1 :Bool $since(3);
  kept @2 :Text $keptByHost $since(3);
}
enum Mode { plain @0 $since(1); slow @1 $since(1); fast @2 $since(2); }
)";

class PluginView : public ::testing::Test {
 protected:
  PluginView() {
    const kj::StringPtr file = "test.capnp";
    folder_->openFile(kj::Path(file), kj::WriteMode::CREATE)->writeAll(kSchema);
    schema = parser_.parseFromDirectory(*folder_, kj::Path(file), nullptr).getNested("Config").asStruct();
  }
  ~PluginView() noexcept override {}

  // What is found in a configuration with these members, for a plugin of 1.`minor`: "PATH since", "PATH value since".
  std::string found(const std::string& members, std::uint16_t minor, const std::vector<std::string>& served = {}) {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<DynamicStruct>(schema);
    parseJson("test", '{' + members + '}', config);
    return foundIn(config, minor, served);
  }
  static std::string foundIn(DynamicStruct::Builder config, std::uint16_t minor,
                             const std::vector<std::string>& served = {}) {
    const auto field = findNewerField(config.asReader(), minor, served);
    if (!field) {
      return "nothing";
    }
    return field->path + (field->value.empty() ? "" : ' ' + field->value) + ' ' + std::to_string(field->since);
  }

  StructSchema schema;

 private:
  kj::Own<const kj::Directory> folder_ = kj::newInMemoryDirectory(kj::nullClock());
  capnp::SchemaParser parser_;
};

TEST_F(PluginView, fieldThatIsNewer_isFoundByItsPath) {
  EXPECT_EQ(found(R"("text":"x")", 1), "text 2");
  EXPECT_EQ(found(R"("number":8)", 1), "number 2");
  EXPECT_EQ(found(R"("flag":false)", 1), "flag 3");
  EXPECT_EQ(found(R"("texts":[""])", 1), "texts 2");
  EXPECT_EQ(found(R"("newInner":{})", 1), "newInner 2");
  EXPECT_EQ(found(R"("inner":{"late":true})", 1), "inner.late 3");
  EXPECT_EQ(found(R"("inners":[{},{"old":true},{"late":true}])", 1), "inners[2].late 3");
  EXPECT_EQ(found(R"("lists":[[{}],[{},{"late":true}]])", 1), "lists[1][1].late 3");
  EXPECT_EQ(found(R"("group":{"a":true})", 1), "group.a 2");
  EXPECT_EQ(found(R"("group":{"b":0.5})", 2), "group.b 3");
}

TEST_F(PluginView, whatAPluginKnows_isNotFound) {
  EXPECT_EQ(found(R"("old":"x","mode":"slow","inner":{"old":true},"choice":{"word":""})", 1), "nothing");
  EXPECT_EQ(found(R"("old":"x")", 0), "old 1");
  EXPECT_EQ(found(R"("text":"x","number":8,"texts":["x"],"group":{"a":true},"first":{"count":2})", 2), "nothing");
  EXPECT_EQ(found(R"("flag":false,"newInner":{"late":true},"group":{"b":0.5},"mode":"fast")", 3), "nothing");
}

TEST_F(PluginView, defaultValues_countForNothing) {
  EXPECT_EQ(found("", 0), "nothing");
  EXPECT_EQ(found(R"("text":"so","number":7,"flag":true,"texts":[],"newMode":"slow","group":{"a":false,"b":0},
    "choice":{"none":null},"first":{"count":0})",
                  0),
            "nothing");
  EXPECT_EQ(found(R"("text":"")", 1), "text 2");
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<DynamicStruct>(schema);
  config.set("data", capnp::Data::Reader());
  EXPECT_EQ(foundIn(config, 1), "nothing");
  const kj::byte byte = 0;
  config.set("data", capnp::Data::Reader(&byte, 1));
  EXPECT_EQ(foundIn(config, 1), "data 2");
}

TEST_F(PluginView, membersOfUnions_countWhenTheyAreChosen) {
  EXPECT_EQ(found(R"("choice":{"late":null})", 1), "choice.late 2");
  EXPECT_EQ(found(R"("choice":{"pair":{}})", 2), "choice.pair 3");
  EXPECT_EQ(found(R"("choice":{"pair":{"right":1}})", 2, {"choice.pair"}), "choice.pair.right 3");
  EXPECT_EQ(found(R"("first":{"count":1})", 1), "first.count 2");
  EXPECT_EQ(found(R"("first":{"other":null})", 1), "first.other 2");
}

TEST_F(PluginView, valuesOfEnumerations_haveAnAgeOfTheirOwn) {
  EXPECT_EQ(found(R"("mode":"fast")", 1), "mode fast 2");
  EXPECT_EQ(found(R"("modes":["slow","fast"])", 1), "modes[1] fast 2");
  EXPECT_EQ(found(R"("modes":["slow","fast"])", 1, {"modes.fast"}), "nothing");
  EXPECT_EQ(found(R"("newMode":"plain")", 1), "newMode 2");
  EXPECT_EQ(found(R"("newMode":"fast")", 1, {"newMode"}), "newMode fast 2");
  EXPECT_EQ(found(R"("newMode":"fast")", 1, {"newMode", "newMode.fast"}), "nothing");
  // One that this host does not know either is no question of age.
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<DynamicStruct>(schema);
  config.set("mode", capnp::DynamicEnum(schema.getFieldByName("mode").getType().asEnum(), 9));
  EXPECT_EQ(foundIn(config, 1), "nothing");
}

TEST_F(PluginView, fieldThatThePluginNames_isItsOwn_andNoOther) {
  EXPECT_EQ(found(R"("text":"x","number":8)", 1, {"text"}), "number 2");
  EXPECT_EQ(found(R"("text":"x","number":8)", 1, {"number", "text"}), "nothing");
  EXPECT_EQ(found(R"("inners":[{"late":true},{"late":true}])", 1, {"inners.late"}), "nothing");
  EXPECT_EQ(found(R"("inners":[{"late":true}])", 1, {"inners[0].late", "late", "inner.late", "inners"}),
            "inners[0].late 3");
  // What came later than a struct that is served does not come with it.
  EXPECT_EQ(found(R"("newInner":{"old":true})", 1, {"newInner"}), "nothing");
  EXPECT_EQ(found(R"("newInner":{"late":true})", 1, {"newInner"}), "newInner.late 3");
}

TEST_F(PluginView, fieldWithoutAge_isTooNewForAll) {
  EXPECT_EQ(found(R"("ageless":true)", 3), "ageless 65535");
}

TEST_F(PluginView, whatTheHostKeeps_isNeverTooNew_andTakenOut) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<DynamicStruct>(schema);
  parseJson("test", R"({"old":"x","kept":{"late":true},"inner":{"old":true,"kept":"k"},"inners":[{},{"kept":"k"}]})",
            config);
  EXPECT_EQ(foundIn(config, 1), "nothing");
  clearKeptByHost(config);
  EXPECT_EQ(writeJson(config.asReader(), {.pretty = false, .withDefaults = false}),
            R"({"old":"x","inner":{"old":true},"inners":[{},{}]})");
}

TEST_F(PluginView, endlessConfiguration_isRefused) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<DynamicStruct>(schema);
  config.init("modes", 1U << 19);
  EXPECT_THROW(foundIn(config, 1), Error);
}

// vm.capnp itself.

// Calls `visit` for all that has an age: fields, groups and values of enumerations; `place` is for messages.
template <typename Visit>
void forEachMember(StructSchema schema, const std::string& place, const Visit& visit) {
  for (const auto field : schema.getFields()) {
    const std::string name = place + field.getProto().getName().cStr();
    visit(name, field);
    auto type = field.getType();
    while (type.isList()) {
      type = type.asList().getElementType();
    }
    if (type.isStruct()) {
      ASSERT_LT(std::count(name.begin(), name.end(), '.'), 20) << name << ": a struct that contains itself has no end";
      forEachMember(type.asStruct(), name + '.', visit);
    } else if (type.isEnum()) {
      for (const auto enumerant : type.asEnum().getEnumerants()) {
        visit(name + '.' + enumerant.getProto().getName().cStr(), enumerant);
      }
    }
  }
}

TEST(VmSchema, everyFieldAndValue_hasAnAge) {
  std::size_t members = 0;
  forEachMember(capnp::Schema::from<schema::VmConfig>(), "", [&](const std::string& name, const auto& member) {
    ++members;
    EXPECT_NE(sinceOf(member), UINT16_MAX) << name << " needs $since(" << VMMHOST_PLUGIN_ABI_MINOR << ')';
    EXPECT_GE(sinceOf(member), 1) << name;
    EXPECT_LE(sinceOf(member), VMMHOST_PLUGIN_ABI_MINOR) << name << " is newer than this host";
  });
  EXPECT_GT(members, 70U);
}

TEST(VmSchema, membersOfGroups_areNoOlderThanTheGroup_andUnionsKeepNoneFromPlugins) {
  forEachMember(capnp::Schema::from<schema::VmConfig>(), "", [](const std::string& name, const auto& member) {
    if constexpr (std::is_same_v<std::decay_t<decltype(member)>, StructSchema::Field>) {
      EXPECT_FALSE(isUnionMember(member) && hasAnnotation(member, kKeptByHostAnnotation)) << name;
      if (member.getProto().isGroup()) {
        for (const auto inner : member.getType().asStruct().getFields()) {
          EXPECT_GE(sinceOf(inner), sinceOf(member)) << name << '.' << inner.getProto().getName().cStr();
        }
      }
    }
  });
}

}  // namespace
}  // namespace vmmhost::config
