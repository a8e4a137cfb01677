//! The pickles that torch writes, read as data.
//!
//! Gets the bytes of a pickle of protocol 2, returns the tree of values that it describes, with what torch means by the
//! few functions that a saved model calls. Nothing is ever executed: a pickle is a program, and every instruction and
//! every name that saved tensors do not need is refused with its place. What holds then: a tree of at most one node for
//! each byte. Never looks at a tensor's elements.

/// A value's place among all values of a pickle.
pub(super) type NodeId = usize;

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node<'a> {
    /// Nothing, a truth, or a number that is no whole one: what saved models hold beside tensors.
    Other,
    Int(i64),
    Text(&'a str),
    Global(Global),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    Storage(Storage<'a>),
    Tensor(View<'a>),
}

/// A name that a pickle may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// A dict that keeps its order, as every dict here does.
    OrderedDict,
    /// Makes a tensor of a storage.
    RebuildTensor,
    /// Makes a parameter, which is a tensor that trains.
    RebuildParameter,
    /// A kind of storage, by what safetensors calls its elements.
    Storage(&'static str),
}

/// The names, by module and name.
const GLOBALS: [(&str, &str, Global); 13] = [
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "FloatStorage", Global::Storage("F32")),
    ("torch", "HalfStorage", Global::Storage("F16")),
    ("torch", "BFloat16Storage", Global::Storage("BF16")),
    ("torch", "DoubleStorage", Global::Storage("F64")),
    ("torch", "LongStorage", Global::Storage("I64")),
    ("torch", "IntStorage", Global::Storage("I32")),
    ("torch", "ShortStorage", Global::Storage("I16")),
    ("torch", "CharStorage", Global::Storage("I8")),
    ("torch", "ByteStorage", Global::Storage("U8")),
    ("torch", "BoolStorage", Global::Storage("BOOL")),
];

/// Elements in an entry of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    /// What they are, as safetensors calls it.
    pub kind: &'static str,
    /// Name of the entry, below the folder of all of them.
    pub key: &'a str,
    /// How many there are.
    pub count: u64,
}

/// A tensor: some of the elements of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View<'a> {
    pub storage: Storage<'a>,
    pub first: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// What a pickle holds.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    pub nodes: Vec<Node<'a>>,
    pub root: NodeId,
}

/// The tree that a pickle describes.
pub(super) fn read(bytes: &[u8]) -> Result<Tree<'_>, String> {
    let mut machine =
        Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: Vec::new() };
    loop {
        let begin = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok(Tree { nodes: machine.nodes, root }),
            Err(reason) => return Err(format!("byte {begin} of its pickle: {reason}")),
        }
    }
}

/// A pickle half-way.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<NodeId>,
    /// How high the stack was at each mark that stands.
    marks: Vec<usize>,
    memo: Vec<Option<NodeId>>,
}

impl<'a> Machine<'a> {
    /// One instruction; the root, if it was the last.
    fn step(&mut self) -> Result<Option<NodeId>, String> {
        match self.take(1)?[0] {
            0x80 => {
                let version = self.number(1)?;
                if version != 2 {
                    return Err(format!("protocol {version}, expected 2, which is what torch writes"));
                }
            }
            b'.' => return self.pop().map(Some),
            b'}' => self.push(Node::Dict(Vec::new())),
            b']' => self.push(Node::List(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.push(Node::Other),
            b'G' => {
                self.take(8)?;
                self.push(Node::Other);
            }
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => {
                let number = self.number(4)? as u32 as i32;
                self.push(Node::Int(i64::from(number)));
            }
            0x8a => self.long()?,
            b'X' => self.text(4)?,
            b'U' => self.text(1)?,
            b'c' => self.global()?,
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items));
            }
            count @ 0x85..=0x87 => {
                let from = self.stack_end(usize::from(count) - 0x84)?;
                let items = self.stack.split_off(from);
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let from = self.stack_end(2)?;
                let items = self.stack.split_off(from);
                self.set(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            b'Q' => self.persistent()?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => return Err(format!("instruction {other:#04x}, which saved tensors do not need")),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or("it ends too early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self, count: usize) -> Result<usize, String> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let len = self.bytes[self.at..].iter().position(|byte| *byte == b'\n').ok_or("a name that does not end")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name that is no UTF-8".into())
    }

    fn push(&mut self, node: Node<'a>) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// Where the uppermost `count` values of the stack begin, none of them below a mark.
    fn stack_end(&self, count: usize) -> Result<usize, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= floor);
        from.ok_or_else(|| "it takes more values than there are".into())
    }

    fn pop(&mut self) -> Result<NodeId, String> {
        let at = self.stack_end(1)?;
        Ok(self.stack.remove(at))
    }

    fn top(&self) -> Result<NodeId, String> {
        Ok(self.stack[self.stack_end(1)?])
    }

    fn pop_mark(&mut self) -> Result<Vec<NodeId>, String> {
        let mark = self.marks.pop().ok_or("it goes back to a mark that is not there")?;
        Ok(self.stack.split_off(mark))
    }

    fn int(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.number(bytes)? as i64;
        self.push(Node::Int(number));
        Ok(())
    }

    /// A whole number of any length, the sign in its last byte.
    fn long(&mut self) -> Result<(), String> {
        let count = self.number(1)?;
        if count > 8 {
            return Err(format!("a number of {count} bytes, at most 8"));
        }
        let digits = self.take(count)?;
        let fill = if digits.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut number = [fill; 8];
        number[..count].copy_from_slice(digits);
        self.push(Node::Int(i64::from_le_bytes(number)));
        Ok(())
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), String> {
        let length = self.number(length_bytes)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a text that is no UTF-8")?;
        self.push(Node::Text(text));
        Ok(())
    }

    fn global(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        let known = GLOBALS.iter().find(|(known, of, _)| (*known, *of) == (module, name));
        let Some((.., global)) = known else {
            return Err(format!("it asks for `{module}.{name}`, which is not run: a model holds tensors alone"));
        };
        self.push(Node::Global(*global));
        Ok(())
    }

    fn put(&mut self, bytes: usize) -> Result<(), String> {
        let (at, top) = (self.number(bytes)?, self.top()?);
        // Picklers count up, so that a number beyond all bytes is no pickler's.
        if at > self.bytes.len() {
            return Err(format!("place {at} of a memo of at most {} values", self.bytes.len()));
        }
        if self.memo.len() <= at {
            self.memo.resize(at + 1, None);
        }
        self.memo[at] = Some(top);
        Ok(())
    }

    fn get(&mut self, bytes: usize) -> Result<(), String> {
        let at = self.number(bytes)?;
        let value = self.memo.get(at).copied().flatten().ok_or_else(|| format!("place {at} of its memo is empty"))?;
        self.stack.push(value);
        Ok(())
    }

    fn extend(&mut self, items: Vec<NodeId>) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(list) => list.extend(items),
            _ => return Err("it appends to what is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[NodeId]) -> Result<(), String> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.nodes[dict] {
            Node::Dict(dict) if rest.is_empty() => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err("it sets entries of what is no dict, or keys without values".into()),
        }
        Ok(())
    }

    /// A storage, which torch pickles by the name of the entry that holds it.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let wrong = || "it refers to something else than a storage of elements".to_owned();
        let Node::Tuple(items) = &self.nodes[id] else { return Err(wrong()) };
        let [what, kind, key, _, count] = items.as_slice() else { return Err(wrong()) };
        let nodes = [what, kind, key, count].map(|id| &self.nodes[*id]);
        let [Node::Text("storage"), Node::Global(Global::Storage(kind)), Node::Text(key), Node::Int(count)] = nodes
        else {
            return Err(wrong());
        };
        let count = u64::try_from(*count).map_err(|_| wrong())?;
        let storage = Storage { kind, key, count };
        self.push(Node::Storage(storage));
        Ok(())
    }

    /// A call of one of the few functions that make tensors.
    fn call(&mut self) -> Result<(), String> {
        let (args, function) = (self.pop()?, self.pop()?);
        let (Node::Global(function), Node::Tuple(args)) = (&self.nodes[function], &self.nodes[args]) else {
            return Err("it calls what is no function".into());
        };
        let made = match (function, args.as_slice()) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            (Global::RebuildTensor, [storage, first, shape, strides, ..]) => {
                Node::Tensor(self.view(*storage, *first, *shape, *strides)?)
            }
            (Global::RebuildParameter, [tensor, ..]) if matches!(self.nodes[*tensor], Node::Tensor(_)) => {
                let tensor = *tensor;
                self.stack.push(tensor);
                return Ok(());
            }
            (function, args) => return Err(format!("it calls {function:?} with {} arguments", args.len())),
        };
        self.push(made);
        Ok(())
    }

    fn view(&self, storage: NodeId, first: NodeId, shape: NodeId, strides: NodeId) -> Result<View<'a>, String> {
        let wrong = || "a tensor of something else than a storage, a place, a shape and strides".to_owned();
        let whole = |id: NodeId| match &self.nodes[id] {
            Node::Int(number) => u64::try_from(*number).map_err(|_| wrong()),
            _ => Err(wrong()),
        };
        let wholes = |id: NodeId| match &self.nodes[id] {
            Node::Tuple(items) if items.len() <= super::stored::MAX_AXES => items.iter().map(|id| whole(*id)).collect(),
            _ => Err(wrong()),
        };
        let Node::Storage(storage) = self.nodes[storage] else { return Err(wrong()) };
        Ok(View { storage, first: whole(first)?, shape: wholes(shape)?, strides: wholes(strides)? })
    }

    /// Attributes of a dict: what `state_dict` notes about versions, of which nothing depends.
    fn build(&mut self) -> Result<(), String> {
        let (state, target) = (self.pop()?, self.top()?);
        match (&self.nodes[target], &self.nodes[state]) {
            (Node::Dict(_), Node::Dict(_)) => Ok(()),
            _ => Err("it sets attributes of what is no dict".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dict_with_a_tensor_is_read() {
        let pickle = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((\
            X\x07\x00\x00\x00storageq\x03ctorch\nHalfStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06\
            K\x06tq\x07QK\x00K\x02K\x03\x86q\x08K\x03K\x01\x86q\x09\x89ccollections\nOrderedDict\nq\x0a)Rq\x0b\
            tq\x0cRq\x0ds.";
        let tree = read(pickle).expect("as torch writes it");
        let Node::Dict(entries) = &tree.nodes[tree.root] else { panic!("{tree:?}") };
        assert_eq!(tree.nodes[entries[0].0], Node::Text("a"));
        let storage = Storage { kind: "F16", key: "0", count: 6 };
        let view = View { storage, first: 0, shape: vec![2, 3], strides: vec![3, 1] };
        assert_eq!(tree.nodes[entries[0].1], Node::Tensor(view));
    }

    #[test]
    fn nothing_that_saved_tensors_do_not_need_is_done() {
        for (pickle, expected) in [
            (&b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], "byte 2 of its pickle: it asks for `os.system`"),
            (b"\x80\x02}(X\x01\x00\x00\x00a\x81.", "byte 10 of its pickle: instruction 0x81"),
            (b"\x80\x04\x95", "byte 0 of its pickle: protocol 4, expected 2"),
            (b"\x80\x02}(K\x01u.", "byte 6 of its pickle: it sets entries of what is no dict, or keys"),
            (b"\x80\x02(.", "byte 3 of its pickle: it takes more values than there are"),
            (b"\x80\x02}0", "byte 3 of its pickle: instruction 0x30"),
            (b"\x80\x02h\x05.", "place 5 of its memo is empty"),
            (b"\x80\x02}r\xff\xff\xff\xff.", "place 4294967295 of a memo"),
            (b"\x80\x02X\xff\xff\xff\xffa", "it ends too early"),
            (b"\x80\x02}", "byte 3 of its pickle: it ends too early"),
            (b"\x80\x02ccollections\nOrderedDict\n)R}b", "it ends too early"),
            (b"\x80\x02K\x01}b.", "it sets attributes of what is no dict"),
            (b"\x80\x02ctorch\nFloatStorage\n)R.", "it calls Storage(\"F32\") with 0 arguments"),
        ] {
            let error = read(pickle).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
    }
}
